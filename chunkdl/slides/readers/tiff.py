"""The direct reader: TIFF slides of every vendor whose tiles lie on a grid, without OpenSlide.

A vendor's module says what each page of the file is; what is read follows from that alone.
tifffile reads the structure once, and no object of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType

import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.readers import (
    aperio,
    generic_tiff,
    leica,
    ndpi,
    ome,
    philips,
    qptiff,
    ventana,
)
from chunkdl.slides.readers.described import Described, ImageSource
from chunkdl.slides.readers.directories import Directory, directories_of
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiff_header import (
    BoundedFile,
    Damaged,
    check_directories,
    is_tiff,
)
from chunkdl.slides.readers.tiff_levels import BACKGROUND, levels_of
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide
from chunkdl.slides.slide import AS_STORED, PixelRule, SlideInfo
from chunkdl.slides.structure import Structure, chosen_image

ARGOS = 65000


def open_tiff(path: str | os.PathLike[str], rule: PixelRule = AS_STORED) -> TiledSlide:
    """Open a slide in a TIFF.

    Args:
        path: the file, with "#image=K" where one of several images is meant.
        rule: how samples that are not 8-bit RGB become it.

    Raises:
        SlideError: no such file, damaged, several images and none chosen, pixels that no rule
            covers, or a file that this reader does not take.
    """
    name = os.fspath(path)
    try:
        return tiff_slide(name, rule)
    except NotTaken as reason:
        raise SlideError(f"the reader 'tiff' does not accept it: {reason}", slide=name) from reason
    except Refused as reason:
        raise SlideError(str(reason), slide=name) from reason


def tiff_slide(name: str, rule: PixelRule) -> TiledSlide:
    """`open_tiff` for the registry.

    Raises:
        NotTaken: another reader has to take it.
        Refused: no reader may take it.
        SlideError: the file is damaged, or does not have the chosen image.
    """
    address = parse_address(name)
    file = describe_tiff(address.path)
    image = chosen_image(file.structure, address.image)
    source = file.sources[image.number]
    if source.refused:
        raise Refused(source.refused)
    if source.not_taken:
        raise NotTaken(source.not_taken)
    levels = levels_of(address.path, image, source, rule)
    base = source.levels[0][0]
    notes = (*image.notes, *_missing(address.path, levels))
    info = SlideInfo(
        path=name,
        reader="tiff",
        levels=tuple(level.level for level in levels),
        mpp=image.mpp,
        background=BACKGROUND,
        mpp_source=image.mpp_source,
        magnification=image.magnification,
        notes=notes,
        icc="in the file, not used" if base.icc_profile else "",
    )
    return TiledSlide(info, levels, icc_profile=base.icc_profile)


def tiff_structure(path: str) -> Structure:
    """What is in a TIFF.

    Raises:
        NotTaken: its pages are not known here; OpenSlide may know it.
        Refused: the file contradicts itself.
        SlideError: the file is damaged.
    """
    return describe_tiff(path).structure


def describe_tiff(path: str) -> Described:
    """The pages of a TIFF and their roles; see `tiff_structure` for the errors."""
    if os.path.isdir(path):
        raise NotTaken("it is a folder")
    directories = tiff_directories(path)
    _refuse_vendors(directories[0])
    for vendor in (ndpi, leica, philips, ventana, qptiff):
        if vendor.is_kind(directories):
            return by_vendor(path, directories, vendor)
    if ome.is_kind(directories):
        return ome.describe(path, directories)
    if aperio.is_kind(directories):
        return aperio.describe(path, directories)
    return generic_tiff.describe(path, directories)


def by_vendor(path: str, directories: tuple[Directory, ...], vendor: ModuleType) -> Described:
    """The pages as a vendor's module describes them, and what that means for reading them."""
    not_taken = ""
    try:
        structure, images = vendor.structure_of(path, directories)
        if vendor is ventana:
            try:
                ventana.check_readable(directories)
            except NotTaken as reason:
                not_taken = str(reason)
    except ValueError as error:
        raise Refused(f"its description is damaged: {error}") from error
    planes = sum(page.role == "focal plane" for page in structure.pages)
    refused = ""
    if planes and vendor is ndpi:
        refused = (
            f"it has {planes} pictures of other focal planes beside its levels: write the plane "
            "that you want into a file of its own"
        )
    sources = tuple(
        ImageSource(
            levels=tuple((directory,) for directory in levels),
            refused=refused,
            not_taken=not_taken,
            tiles=ndpi.ndpi_levels if vendor is ndpi else None,
        )
        for levels in images
    )
    return Described(structure, sources)


def tiff_directories(path: str) -> tuple[Directory, ...]:
    """The pages of a TIFF that have pixels.

    Raises:
        NotTaken: it is not a TIFF.
        SlideError: the file is damaged.
    """
    try:
        with open(path, "rb") as file:
            if not is_tiff(file.read(8)):
                raise NotTaken("it is not a TIFF")
        check_directories(path)
        with BoundedFile(path) as bounded, tifffile.TiffFile(bounded) as tiff:
            found = directories_of(tiff)
    except (Damaged, OSError) as error:
        raise SlideError(f"cannot read the structure of the TIFF: {error}", slide=path) from error
    except (SlideError, NotTaken):
        raise
    except Exception as error:  # tifffile raises what its parsing happens to meet
        raise SlideError(f"cannot read the structure of the TIFF: {error}", slide=path) from error
    whole = tuple(one for one in found if min(one.width, one.height) > 0 and len(one.offsets))
    if not whole:
        raise SlideError("the TIFF has no picture with pixels: it is damaged", slide=path)
    return whole


def _refuse_vendors(first: Directory) -> None:
    """Refuse the formats whose tiles overlap or move."""
    vendor = {
        "Trestle TIFF": first.software.startswith("MedScan"),
        "Huron TIFF": first.make.startswith("Huron"),
        "Argos AVS": str(first.tags.get(ARGOS, "")).startswith("<Argos"),
    }
    for name, found in vendor.items():
        if found:
            raise NotTaken(f"it is a {name} file")


def _missing(path: str, levels: Sequence[TiledLevel]) -> list[str]:
    """What to tell of a file that ends before its tiles do."""
    size = os.path.getsize(path)
    tiles = sum(level.offsets.shape[1] for level in levels)
    ends = [level.offsets + level.byte_counts for level in levels]
    beyond = sum(int((end > size).any(axis=0).sum()) for end in ends)
    if not beyond:
        return []
    last = max(int(end.max()) for end in ends)
    return [
        f"the file is cut short at byte {size} of {last}: {beyond} of {tiles} tiles are missing; "
        "copy it again"
    ]
