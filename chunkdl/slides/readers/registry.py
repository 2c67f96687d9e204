"""Which reader opens a slide."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from chunkdl.errors import ConfigError, SlideError
from chunkdl.patients import SLIDE_SUFFIXES
from chunkdl.slides.readers.openslide import OpenSlideSlide
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.slide import Slide

_log = logging.getLogger(__name__)


READERS: Mapping[str, Callable[[str], Slide]] = {
    "tiff": open_tiff,
    "openslide": OpenSlideSlide,
}
"""Readers by name, in the order in which "auto" asks them."""


def open_slide(path: str | os.PathLike[str], reader: str = "auto") -> Slide:
    """Open a slide.

    Args:
        path: the slide file; for DICOM one file of the series, or the folder of its files.
        reader: "tiff" (fast, RGB pyramids in TIFF), "openslide" (everything OpenSlide knows), or
            "auto": the first of these that takes the file.

    Raises:
        ConfigError: there is no reader of that name.
        SlideError: the file cannot be opened; with "auto", the reasons of all readers.
    """
    name = os.fspath(path)
    if reader != "auto" and reader not in READERS:
        raise ConfigError(f"no reader {reader!r}: choose 'auto' or one of {', '.join(READERS)}")
    if not os.path.exists(name):
        raise SlideError("no such file", slide=name)
    if reader != "auto":
        return READERS[reader](name)
    refusals: list[SlideError] = []
    for candidate, opener in READERS.items():
        try:
            slide = opener(name)
        except SlideError as refusal:
            refusals.append(refusal)
            continue
        why = f" ({'; '.join(map(str, refusals))})" if refusals else ""
        _log.info("slide %s: reader %s%s", name, candidate, why)
        return slide
    reasons = "; ".join(map(str, refusals))
    raise SlideError(f"no reader takes the file: {reasons}", slide=name) from refusals[0]


def is_slide_path(path: str | os.PathLike[str]) -> bool:
    """Whether the path looks like a slide: a known suffix, or a folder of DICOM files."""
    name = os.fspath(path)
    if os.path.isdir(name):
        return any(entry.lower().endswith(".dcm") for entry in os.listdir(name))
    return name.lower().endswith(SLIDE_SUFFIXES)
