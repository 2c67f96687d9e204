"""TCGA's barcodes, as the GDC names the files of slides.

See the GDC's encyclopedia, "TCGA Barcode", and its code tables of sample types.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem

SAMPLE_TYPES = {
    "01": "Primary Solid Tumor",
    "02": "Recurrent Solid Tumor",
    "03": "Primary Blood Derived Cancer - Peripheral Blood",
    "04": "Recurrent Blood Derived Cancer - Bone Marrow",
    "05": "Additional - New Primary",
    "06": "Metastatic",
    "07": "Additional Metastatic",
    "08": "Human Tumor Original Cells",
    "09": "Primary Blood Derived Cancer - Bone Marrow",
    "10": "Blood Derived Normal",
    "11": "Solid Tissue Normal",
    "12": "Buccal Cell Normal",
    "13": "EBV Immortalized Normal",
    "14": "Bone Marrow Normal",
    "20": "Control Analyte",
    "40": "Recurrent Blood Derived Cancer - Peripheral Blood",
    "50": "Cell Lines",
    "60": "Primary Xenograft Tissue",
    "61": "Cell Line Derived Xenograft Tissue",
}
"""The 19 codes that have a meaning."""
_FROZEN = ("TS", "BS", "MS")
"""Top, bottom and middle slide of a frozen portion; DX is the diagnostic slide, of paraffin."""
_BARCODE = re.compile(
    r"(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})-(?P<sample>[0-9]{2})[A-Z]"
    r"-[0-9A-Z]{2}-(?P<kind>TS|BS|MS|DX)[0-9A-Z]{1,2}(?:\..*)?",
    re.DOTALL,
)
_PROJECT = re.compile(r"TCGA-[A-Z]{2,4}")


@dataclass(frozen=True, slots=True)
class Tcga:
    """Slides of TCGA: "TCGA-05-4395-01Z-00-DX1.20205276-ca16-46b2-914a-fe5e576a5cf9.svs".

    The patient is "TCGA-05-4395". Labels of the patient: `site` ("05", the code of the hospital
    that gave the tissue) and `project` ("TCGA-LUAD", or None where it is not known). Labels of the
    slide: `sample_type` ("Primary Solid Tumor", one of 19) and `preparation` ("diagnostic" for DX,
    "frozen" for TS, BS and MS).

    Attributes:
        slides: which slides are wanted; the others are left out.
        project: of all slides; by default the name of the nearest folder above a slide that is
            named like one.
    """

    slides: Literal["all", "diagnostic", "frozen"] = "all"
    project: str | None = None

    def __post_init__(self) -> None:
        if self.slides not in ("all", "diagnostic", "frozen"):
            raise DatasetError(
                f"slides={self.slides!r:.80} must be 'all', 'diagnostic' or 'frozen'"
            )

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = _BARCODE.fullmatch(stem(path))
        if found is None:
            raise DatasetError("the name is no barcode of a slide, such as TCGA-05-4395-01Z-00-DX1")
        sample = SAMPLE_TYPES.get(found["sample"])
        if sample is None:
            raise DatasetError(f"the code {found['sample']!r} is no sample type of TCGA")
        preparation = "frozen" if found["kind"] in _FROZEN else "diagnostic"
        if self.slides not in ("all", preparation):
            return None
        project = self.project or _project(path)
        return NamedSlide(
            found["patient"],
            {"site": found["site"], "project": project},
            {"sample_type": sample, "preparation": preparation},
        )


def _project(path: str) -> str | None:
    folders = os.path.dirname(path).split(os.sep)
    return next((name for name in reversed(folders) if _PROJECT.fullmatch(name)), None)
