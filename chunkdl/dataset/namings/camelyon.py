"""CAMELYON16 and CAMELYON17: lymph nodes of patients with breast cancer."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem

_SLIDE_16 = re.compile(r"(?P<kind>normal|tumor|test)_[0-9]{3}")
_SLIDE_17 = re.compile(r"(?P<patient>patient_(?P<number>[0-9]{3}))_node_(?P<node>[0-9])")
_CENTER = re.compile(r"cent(?:er|re)_(?P<number>[0-4])", re.IGNORECASE)
_TRAINING_PATIENTS = 100
_PATIENTS_OF_A_CENTER = 20


@dataclass(frozen=True, slots=True)
class Camelyon16:
    """Slides of CAMELYON16: "normal_001.tif", "tumor_001.tif", "test_001.tif".

    Each slide is of a patient of its own, named as the slide. Label of the slide: `tissue`
    ("normal" or "tumor"; None for the test set, whose answers are in its table; see
    `Dataset.with_labels`). Masks ("tumor_001_mask.tif") do not fit.
    """

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = _SLIDE_16.fullmatch(stem(path).lower())
        if found is None:
            raise DatasetError(
                "the name is no slide of CAMELYON16, such as normal_001, tumor_001 or test_001"
            )
        tissue = None if found["kind"] == "test" else found["kind"]
        return NamedSlide(found[0], of_slide={"tissue": tissue})


@dataclass(frozen=True, slots=True)
class Camelyon17:
    """Slides of CAMELYON17: "patient_020_node_4.tif" is node 4 of patient "patient_020".

    Label of the patient: `center` (0 to 4, the hospital). For the 100 patients of the training set
    it is their number divided by 20, rounded down. For the others it is in the name of a folder
    above, such as "center_1", or else None. Label of the slide: `lymph_node` (0 to 4).
    """

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = _SLIDE_17.fullmatch(stem(path))
        if found is None:
            raise DatasetError("the name is no slide of CAMELYON17, such as patient_020_node_4")
        folders = map(_CENTER.fullmatch, os.path.dirname(path).split(os.sep))
        named = [int(folder["number"]) for folder in folders if folder]
        number = int(found["number"])
        center = number // _PATIENTS_OF_A_CENTER if number < _TRAINING_PATIENTS else None
        if center is not None and named and named[-1] != center:
            raise DatasetError(
                f"{found['patient']} is of center {center}, and lies in a folder of center "
                f"{named[-1]}"
            )
        if center is None and named:
            center = named[-1]
        return NamedSlide(found["patient"], {"center": center}, {"lymph_node": int(found["node"])})
