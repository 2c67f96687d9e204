"""Which reader opens a slide, and what a file is that none may open.

A reader is imported when the first file is its own: most processes read slides of one format, and
all readers with their libraries are a third of what a loader has to import.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.readers.dicom_magic import NO_DICOM, is_dicom
from chunkdl.slides.readers.foreign import what_it_is
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiff_header import is_tiff
from chunkdl.slides.slide import AS_STORED, PixelRule, Slide
from chunkdl.slides.structure import Structure
from chunkdl.system.own_imports import importing_ours
from chunkdl.system.steady_log import steady_logger

_log = steady_logger(__name__)
HEAD_BYTES = 512


def _dicom(name: str, rule: PixelRule) -> Slide:
    _refuse_no_dicom(parse_address(name).path)
    with importing_ours():
        from chunkdl.slides.readers.dicom import dicom_slide
    return dicom_slide(name, rule)


def _tiff(name: str, rule: PixelRule) -> Slide:
    with importing_ours():
        from chunkdl.slides.readers.tiff import tiff_slide
    return tiff_slide(name, rule)


def _openslide(name: str, rule: PixelRule) -> Slide:
    with importing_ours():
        from chunkdl.slides.readers.openslide import OpenSlideSlide
    return OpenSlideSlide(name, rule)


def _dicom_structure(path: str) -> Structure:
    _refuse_no_dicom(path)
    with importing_ours():
        from chunkdl.slides.readers.dicom import structure_of
    return structure_of(path)


def _tiff_structure(path: str) -> Structure:
    with importing_ours():
        from chunkdl.slides.readers.tiff import tiff_structure
    return tiff_structure(path)


def _openslide_structure(path: str) -> Structure:
    with importing_ours():
        from chunkdl.slides.readers.openslide import openslide_structure
    return openslide_structure(path)


def _refuse_no_dicom(path: str) -> None:
    # What cannot be read the reader says itself.
    with suppress(OSError):
        if not os.path.isdir(path) and not is_dicom(path):
            raise NotTaken(NO_DICOM)


READERS: Mapping[str, Callable[[str, PixelRule], Slide]] = {
    # Files of the Imaging Data Commons are DICOM and TIFF in one, and as a TIFF have one level.
    "dicom": _dicom,
    "tiff": _tiff,
    "openslide": _openslide,
}
"""Readers by name, in the order in which "auto" asks them."""
_STRUCTURES: Mapping[str, Callable[[str], Structure]] = {
    "dicom": _dicom_structure,
    "tiff": _tiff_structure,
    "openslide": _openslide_structure,
}


def open_slide(
    path: str | os.PathLike[str], reader: str = "auto", rule: PixelRule = AS_STORED
) -> Slide:
    """Open a slide.

    Args:
        path: the slide file; for DICOM one file of the series, or the folder of its files. Append
            "#image=K" if the file has several slides.
        reader: "dicom" or "tiff" (fast readers of these formats), "openslide" (every format that
            OpenSlide knows), or "auto": the first of these that accepts the file.
        rule: how pixels that are not 8-bit RGB are converted, and whether the colour profile is
            used.

    Raises:
        ConfigError: there is no reader of that name.
        SlideError: the file cannot be opened, or would be read incorrectly; with "auto", the
            message has the reasons of all readers.
    """
    name = os.fspath(path)
    if reader != "auto" and reader not in READERS:
        raise ConfigError(
            f"there is no reader {reader!r}: choose 'auto' or one of {', '.join(READERS)}"
        )
    _check_file(name)
    candidates = [*READERS] if reader == "auto" else [reader]
    refusals: list[NotTaken] = []
    for candidate in candidates:
        try:
            slide = READERS[candidate](name, rule)
        except NotTaken as refusal:
            refusals.append(NotTaken(f"{candidate}: {refusal}"))
            continue
        except Refused as refusal:
            raise SlideError(str(refusal), slide=name) from refusal
        why = f" ({'; '.join(map(str, refusals))})" if refusals else ""
        _log.info("slide %s: reader %s%s", name, candidate, why)
        if rule.icc != "srgb":
            return slide
        with importing_ours():
            from chunkdl.slides.readers.colours import in_srgb
        return in_srgb(slide)
    reasons = "; ".join(map(str, refusals))
    raise SlideError(
        f"no reader accepts the file: {reasons}; convert it to a tiled TIFF or to DICOM", slide=name
    ) from refusals[0]


def read_structure(path: str | os.PathLike[str]) -> Structure:
    """What is in a slide file: every picture, its role and why.

    Raises:
        SlideError: the file cannot be read, or nobody knows what is in it.
    """
    name = os.fspath(path)
    _check_file(name)
    file = parse_address(name).path
    refusals: list[str] = []
    for candidate, structure in _STRUCTURES.items():
        try:
            return structure(file)
        except NotTaken as refusal:
            refusals.append(f"{candidate}: {refusal}")
        except Refused as refusal:
            raise SlideError(str(refusal), slide=name) from refusal
    raise SlideError(f"no reader knows the file: {'; '.join(refusals)}", slide=name)


def _check_file(name: str) -> None:
    """Refuse what is not a slide by what it is.

    Raises:
        SlideError: there is no such file, it cannot be read, or it is something else.
    """
    path = parse_address(name).path
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            return
        if not stat.S_ISREG(kind):
            raise SlideError("it is not a file but a pipe, socket or device", slide=name)
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        foreign = what_it_is(os.path.getsize(path), head)
    except FileNotFoundError as error:
        link = " (it is a link to a missing file)" if os.path.islink(path) else ""
        raise SlideError(f"no such file{link}", slide=name) from error
    except OSError as error:
        raise SlideError(f"cannot read the file: {error.strerror}", slide=name) from error
    # The file of that name of a MIRAX slide is a picture of it.
    if foreign is not None and not is_tiff(head) and not path.lower().endswith(".mrxs"):
        raise SlideError(foreign, slide=name)
