"""PANDA: prostate biopsies of the Kaggle challenge "Prostate cANcer graDe Assessment"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem

_IMAGE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Panda:
    """Slides of PANDA: "0005f7aaab2800f6170c399693a96917.tiff".

    The data set does not say which images are of one patient, so each image is a patient of its
    own: a patient may then be in two parts of a split. If you have a table that says it, use
    `NameTable`. Grades and the hospital are in "train.csv"; see
    `Dataset.with_labels`. Masks ("…_mask.tiff") do not fit.
    """

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        name = stem(path)
        if name.endswith("_mask"):
            raise DatasetError("this is a mask, and no slide; give the folder of the images alone")
        if not _IMAGE.fullmatch(name):
            raise DatasetError("the name is no image of PANDA, which has 32 hexadecimal digits")
        return NamedSlide(name)
