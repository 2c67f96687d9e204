"""Slides of CPTAC's third phase, as the Cancer Imaging Archive and the GDC name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem

_NAME = re.compile(r"(?P<patient>C3[LN]-[0-9]{5})-(?P<number>[0-9]{2})")


@dataclass(frozen=True, slots=True)
class Cptac:
    """Slides of CPTAC: "C3L-00001-21.svs" is slide 21 of patient "C3L-00001".

    Label of the slide: `slide_number` (21). The name does not say whether it shows tumor: see the
    table of the collection, and `Dataset.with_labels`. Slides of CPTAC-2, which are named by other
    codes, do not fit; they need the table of the collection, and `NameTable`.
    """

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = _NAME.fullmatch(stem(path))
        if found is None:
            raise DatasetError("the name is no slide of CPTAC, such as C3L-00001-21")
        return NamedSlide(found["patient"], of_slide={"slide_number": int(found["number"])})
