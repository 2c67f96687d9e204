"""How the names of slide files end."""

from __future__ import annotations

DICOM_SUFFIX = ".dcm"
SLIDE_SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".ndpi", ".scn", ".mrxs", ".bif", ".svslide"),
    *(".vms", ".vmu", ".czi", DICOM_SUFFIX),
)
"""Of any slide, in lower case."""
