"""The reader for DICOM whole-slide images: one file for each level, in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.microns import Claim, believed
from chunkdl.slides.readers.dicom_frames import Frames, frames_of
from chunkdl.slides.readers.dicom_header import Instance, read_instance
from chunkdl.slides.readers.dicom_magic import NO_DICOM, is_dicom
from chunkdl.slides.readers.dicom_pixels import check_first, maker_of, reason_against
from chunkdl.slides.readers.dicom_pyramid import Picture, Pyramid, pictures_of, pyramids_of
from chunkdl.slides.readers.dicom_series import series_in, unreadable_in
from chunkdl.slides.readers.dicom_tags import TRANSFER_SYNTAXES
from chunkdl.slides.readers.refusals import NotTaken, Refused, refuse_other_channels
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide
from chunkdl.slides.slide import AS_STORED, Level, PixelRule, SlideInfo
from chunkdl.slides.structure import Page, SlideImage, Structure, chosen_image, downsamples

FORMAT = "DICOM whole-slide image"


def structure_of(path: str | os.PathLike[str]) -> Structure:
    """What is in a DICOM slide: every picture of the series, and which are its levels.

    Args:
        path: one file of the series, whose siblings in the folder are found by their
            SeriesInstanceUID; or the folder, then the slides of all series in it.

    Raises:
        NotTaken: it is not a DICOM slide.
        SlideError: no such file, damaged, or a part of a concatenation is missing.
    """
    return _model(os.fspath(path)).structure


def open_dicom(path: str | os.PathLike[str], rule: PixelRule = AS_STORED) -> TiledSlide:
    """Open a DICOM whole-slide image of 8-bit colour.

    Args:
        path: one file of the series, or its folder, with "#image=K" where it has several series.
        rule: how samples become RGB; 8-bit colour needs none, and has no other channels.

    Raises:
        SlideError: no such file, no DICOM slide, damaged, or not taken by this reader; or there
            are several slides and none was chosen.
    """
    name = os.fspath(path)
    try:
        return dicom_slide(name, rule)
    except (NotTaken, Refused) as reason:
        raise SlideError(f"the reader 'dicom' does not accept it: {reason}", slide=name) from reason


def dicom_slide(name: str, rule: PixelRule) -> TiledSlide:
    """`open_dicom` for the registry.

    Raises:
        NotTaken: another reader has to take it.
        Refused: the rule names other channels than red, green and blue.
        SlideError: the slide is damaged, or several are there and none was chosen.
    """
    address = parse_address(name)
    model = _model(address.path)
    chosen = chosen_image(model.structure, address.image)
    levels = model.pyramids[chosen.number].levels
    if reason := reason_against(levels[0].head):
        raise NotTaken(reason)
    refuse_other_channels(rule, "dicom")
    found = []
    for level, picture in zip(chosen.levels, levels, strict=True):
        try:
            found.append(_tiled_level(level, picture))
        except NotTaken as refused:
            raise NotTaken(f"{picture.name}: {refused}") from refused
        except (OSError, ValueError) as error:
            raise SlideError(f"cannot read {picture.name}: {error}", slide=name) from error
    profile = levels[0].head.icc_profile
    info = SlideInfo(
        path=name,
        reader="dicom",
        levels=chosen.levels,
        mpp=chosen.mpp,
        mpp_source=chosen.mpp_source,
        magnification=chosen.magnification,
        notes=(*model.structure.notes, *chosen.notes),
        icc="in the file, not used" if profile else "",
    )
    return TiledSlide(info, found, icc_profile=profile)


# ---- Structure


@dataclass(frozen=True, slots=True)
class _Model:
    """The structure, and for each of its images the pictures that are the levels."""

    structure: Structure
    pyramids: tuple[Pyramid, ...]


def _model(path: str) -> _Model:
    pages: list[Page] = []
    images: list[SlideImage] = []
    pyramids: list[Pyramid] = []
    for files in _series(path):
        instances = []
        for file in files:
            try:
                instances.append(read_instance(file))
            except NotTaken as refused:
                raise NotTaken(f"{os.path.basename(file)}: {refused}") from refused
            except (ValueError, OSError) as error:
                raise SlideError(
                    f"cannot read the header of {os.path.basename(file)}: {error}", slide=path
                ) from error
        pictures = pictures_of(instances)
        found, aside = pyramids_of(pictures)
        places = {}
        for pyramid in found:
            for index, level in enumerate(pyramid.levels):
                places[level.head.path] = level, len(images), index
            images.append(_image(len(images), pyramid))
            pyramids.append(pyramid)
        others = {picture.head.path: picture for picture in aside}
        for picture in pictures:
            place = places.get(picture.head.path)
            shown = others[picture.head.path] if place is None else place[0]
            page = _page(shown)
            pages.append(page if place is None else replace(page, image=place[1], level=place[2]))
    structure = Structure(path, FORMAT, tuple(pages), tuple(images), _left_aside(path))
    return _Model(structure, tuple(pyramids))


def _series(path: str) -> list[tuple[str, ...]]:
    """The files of the series that a path stands for, one tuple for each."""
    try:
        if os.path.isdir(path):
            found = list(series_in(path).values())
            if not found:
                raise NotTaken("the folder has no file of a DICOM whole-slide image")
            return found
        if not os.path.exists(path):
            raise SlideError("no such file", slide=path)
        if not is_dicom(path):
            raise NotTaken(NO_DICOM)
        folder, own = os.path.split(path)
        for files in series_in(folder or ".").values():
            if own in map(os.path.basename, files):
                return [files]
    except OSError as error:
        raise SlideError(f"it cannot be read: {error}", slide=path) from error
    # It belongs to no series; its own header says why.
    return [(path,)]


def _left_aside(path: str) -> tuple[str, ...]:
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    try:
        return unreadable_in(folder)
    except OSError as error:
        raise SlideError(f"cannot read the folder: {error}", slide=path) from error


def _page(picture: Picture) -> Page:
    head = picture.head
    frames = sum(part.frames for part in picture.parts)
    return Page(
        name=picture.name,
        width=head.width,
        height=head.height,
        pixels=(
            f"{TRANSFER_SYNTAXES[head.syntax]}, {head.samples} x {head.bits_stored} bit, "
            f"{head.photometric}, {frames} frames of {head.frame_width}x{head.frame_height}"
        ),
        role=picture.role,
        why=picture.why,
    )


def _image(number: int, pyramid: Pyramid) -> SlideImage:
    head = pyramid.levels[0].head
    sizes = [(level.width, level.height) for level in pyramid.levels]
    levels = tuple(
        Level(*size, downsample, level.head.frame_width, level.head.frame_height)
        for size, downsample, level in zip(sizes, downsamples(sizes), pyramid.levels, strict=True)
    )
    microns = believed(_claims(head), head.magnification)
    return SlideImage(
        number=number,
        name=head.series_name,
        levels=levels,
        mpp=microns.mpp,
        mpp_source=microns.source,
        magnification=head.magnification,
        notes=(*microns.notes, *pyramid.notes),
    )


def _claims(head: Instance) -> list[Claim]:
    """What the header says of microns per pixel."""
    claims = []
    if head.spacing is not None:
        x, y = head.spacing
        claims.append(Claim(x * 1000, y * 1000, f"the PixelSpacing of {head.file}"))
    if head.extent is not None:
        x, y = head.extent[0] * 1000 / head.width, head.extent[1] * 1000 / head.height
        claims.append(Claim(x, y, f"the ImagedVolumeWidth of {head.file}"))
    return claims


# ---- Levels


def _tiled_level(level: Level, picture: Picture) -> TiledLevel:
    """Where the tiles of one picture are.

    Raises:
        NotTaken: its frames are placed in a way that is not read.
        ValueError, OSError: a file is damaged or cut short.
    """
    head = picture.head
    offsets = np.zeros(head.tiles, np.int64)
    byte_counts = np.zeros(head.tiles, np.int64)
    file_of_tile = np.zeros(head.tiles, np.int32)
    taken = np.zeros(head.tiles, np.bool_)
    if head.organization == "TILED_FULL":
        frames = sum(part.frames for part in picture.parts)
        if frames != head.tiles:
            raise NotTaken(
                f"it has {frames} frames where {head.tiles} cover the picture once: focal planes, "
                "optical paths, or frames that are missing"
            )
    first = 0
    for number, part in enumerate(picture.parts):
        stored = frames_of(part)
        places = _places(part, stored, first)
        if len(np.unique(places)) < len(places) or taken[places].any():
            raise NotTaken("several frames show one place: focal planes or optical paths")
        taken[places] = True
        offsets[places], byte_counts[places] = stored.offsets, stored.byte_counts
        file_of_tile[places] = number
        _check_first(part, stored)
        first += part.frames
    return TiledLevel(
        level=level,
        tiles_across=head.tiles_across,
        offsets=offsets[None],
        byte_counts=byte_counts[None],
        full_height=True,
        make=maker_of(head),
        files=tuple(part.path for part in picture.parts),
        file_of_tile=file_of_tile if len(picture.parts) > 1 else None,
    )


def _places(part: Instance, frames: Frames, first: int) -> npt.NDArray[np.int64]:
    """For each frame of a file the index of its tile; `first` frames are in the files before."""
    if part.organization == "TILED_FULL":
        return np.arange(first, first + part.frames)
    if not part.organization and part.tiles == part.frames == 1:
        return np.zeros(1, np.int64)
    if part.organization not in ("", "TILED_SPARSE"):
        raise NotTaken(f"its frames are organized as {part.organization}")
    if len(frames.columns) != part.frames or len(frames.rows) != part.frames:
        raise NotTaken("it does not say where each of its frames is")
    size = np.array([part.frame_width, part.frame_height])
    corners = np.stack([frames.columns, frames.rows], axis=-1)
    outside = (corners < 0) | (corners >= (part.width, part.height)) | (corners % size != 0)
    if outside.any():
        x, y = corners[outside.any(axis=1).argmax()]
        raise NotTaken(
            f"a frame at ({x}, {y}) is not on the grid of {size[0]}x{size[1]} pixels, or outside"
        )
    column, row = (corners // size).T
    return np.asarray(row * part.tiles_across + column)


def _check_first(part: Instance, frames: Frames) -> None:
    """Check the beginning of the first frame, so that a refusal comes at the opening."""
    present = np.flatnonzero(frames.byte_counts)
    if not len(present):
        return
    index = int(present[0])
    with open(part.path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), int(frames.byte_counts[index]), int(frames.offsets[index]))
    try:
        check_first(part, data)
    except ValueError as reason:
        raise NotTaken(str(reason)) from reason
