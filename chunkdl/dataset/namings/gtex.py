"""GTEx: tissues of organ donors, as its portal and the Imaging Data Commons name the slides."""

from __future__ import annotations

import re
from dataclasses import dataclass

from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem

_SAMPLE = re.compile(r"(?P<patient>GTEX-[A-Z0-9]{4,5})-(?P<sample>[0-9]{4})")


@dataclass(frozen=True, slots=True)
class Gtex:
    """Slides of GTEx: "GTEX-1117F-0126.svs" is sample 0126 of donor "GTEX-1117F".

    Label of the slide: `sample` ("GTEX-1117F-0126", the "Tissue Sample ID" of the portal's table,
    which has the tissue; see `Dataset.with_labels`).
    """

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = _SAMPLE.fullmatch(stem(path))
        if found is None:
            raise DatasetError("the name is no slide of GTEx, such as GTEX-1117F-0126")
        return NamedSlide(found["patient"], of_slide={"sample": found[0]})
