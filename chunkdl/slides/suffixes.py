"""How the names of slide files end."""

from __future__ import annotations

import os

DICOM_SUFFIX = ".dcm"
SLIDE_SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide"),
    *(".vms", ".vmu", ".czi", DICOM_SUFFIX),
)
"""Of any slide, in lower case."""


def stem(path: str) -> str:
    """The file name without what makes it a slide: "a.b.svs" is "a.b", "a.ome.tif" is "a"."""
    name = os.path.basename(path)
    suffixes = (*(f".ome{suffix}" for suffix in SLIDE_SUFFIXES), *SLIDE_SUFFIXES)
    found = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(found)]
