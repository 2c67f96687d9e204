"""Writers of small TIFF files page by page, and what the readers make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from chunkdl.slides.readers.registry import read_structure
from chunkdl.slides.slide import Pixels

TILE = 64
OME_NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True)
class Page:
    """One page: pixels, options of tifffile beyond the usual ones, and its SubIFDs."""

    pixels: npt.NDArray[Any]
    options: dict[str, Any] = field(default_factory=dict)
    below: tuple[Page, ...] = ()


def page(pixels: npt.NDArray[Any], *below: Page, **options: Any) -> Page:
    """A page; `strips=True` stores it in strips."""
    return Page(pixels, options, below)


def reduced(pixels: Pixels, factor: int, **options: Any) -> Page:
    """A page of every `factor`-th pixel, marked as reduced."""
    small = np.ascontiguousarray(pixels[::factor, ::factor])
    return Page(small, {"subfiletype": 1, **options})


def write_tiff(path: Path, *pages: Page, **file: Any) -> Path:
    """A TIFF of these pages: deflate tiles, RGB or grey, with nothing that is not asked for."""
    with tifffile.TiffWriter(path, **file) as tiff:
        for one in pages:
            _write(tiff, one, subifds=len(one.below))
            for sub in one.below:
                _write(tiff, sub)
    return path


def _write(tiff: tifffile.TiffWriter, one: Page, **more: Any) -> None:
    grey = one.pixels.ndim == 2
    plain: dict[str, Any] = {
        "photometric": "minisblack" if grey else "rgb",
        "tile": (TILE, TILE),
        "compression": "zlib",
        "metadata": None,
        "software": False,
    }
    options = {**plain, **one.options, **more}
    if options.pop("strips", False):
        options |= {"tile": None, "rowsperstrip": 16}
    tiff.write(one.pixels, **options)


def aperio(
    size: tuple[int, int], smaller: tuple[int, int] | None = None, fields: str = "|AppMag = 20"
) -> str:
    """The description of a page that shows the slide, as Aperio's scanners write it."""
    width, height = size
    arrow = f" -> {smaller[0]}x{smaller[1]}" if smaller else ""
    return (
        f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] "
        f"({TILE}x{TILE}){arrow} JPEG/RGB Q=90{fields}"
    )


def ome(*images: str) -> bytes:
    """OME-XML of these Image elements."""
    head = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME_NAMESPACE}">'
    return f"{head}{''.join(images)}</OME>".encode()


def ome_image(
    number: int,
    name: str,
    size: tuple[int, int],
    mpp: float | str | None = None,
    *,
    ifd: int | None = None,
    unit: str = "",
    channels: Sequence[str] = (),
    depth: int = 1,
) -> str:
    """An Image element: RGB in one page, or one page for each of the named channels."""
    width, height = size
    physical = ""
    if mpp is not None:
        spelled = {axis: f' PhysicalSize{axis}Unit="{unit}"' if unit else "" for axis in "XY"}
        physical = "".join(f' PhysicalSize{axis}="{mpp}"{spelled[axis]}' for axis in "XY")
    names = "".join(
        f'<Channel ID="Channel:{number}:{index}" Name="{each}" SamplesPerPixel="1"/>'
        for index, each in enumerate(channels)
    )
    planes = max(1, len(channels)) * depth
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}" '
        f'DimensionOrder="XYCZT" Type="uint8" SizeX="{width}" SizeY="{height}" '
        f'SizeC="{max(3, len(channels))}" SizeZ="{depth}" SizeT="1"{physical}>'
        + (names or f'<Channel ID="Channel:{number}:0" SamplesPerPixel="3"/>')
        + f'<TiffData IFD="{number if ifd is None else ifd}" PlaneCount="{planes}"/>'
        "</Pixels></Image>"
    )


def size_of(pixels: Pixels) -> tuple[int, int]:
    """(width, height)."""
    return pixels.shape[1], pixels.shape[0]


def roles(path: Path) -> list[str]:
    """The role of every page, levels as "level K of image N"."""
    return [
        one.role if one.role != "level" else f"level {one.level} of image {one.image}"
        for one in read_structure(path).pages
    ]


def sizes(path: Path, image: int = 0) -> list[tuple[int, int]]:
    """The true sizes of the levels of an image."""
    return [(level.width, level.height) for level in read_structure(path).images[image].levels]


def padded(pixels: Pixels, tile: int = TILE, value: int = 255) -> Pixels:
    """The picture filled up to whole tiles."""
    height, width = (-(-side // tile) * tile for side in pixels.shape[:2])
    out = np.full((height, width, 3), value, np.uint8)
    out[: pixels.shape[0], : pixels.shape[1]] = pixels
    return out


def averaged(pixels: Pixels, factor: int) -> Pixels:
    """The picture reduced by area, its sides rounded down."""
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    image = Image.fromarray(pixels[: height * factor, : width * factor])
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


OFFSETS, BYTE_COUNTS = 324, 325


def edit_tiles(
    path: Path, number: int, edit: Callable[[list[int], list[int]], object]
) -> tuple[list[int], list[int]]:
    """Change the offsets and byte counts of the tiles of a page in place; returns what they were.

    Args:
        path: the file.
        number: of the page.
        edit: changes (offsets, byte counts).
    """
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages[number].aspage().tags
        before = [[*np.atleast_1d(tags[code].value).tolist()] for code in (OFFSETS, BYTE_COUNTS)]
        after = [[*values] for values in before]
        edit(*after)
        for code, values in zip((OFFSETS, BYTE_COUNTS), after, strict=True):
            tags[code].overwrite(values)
    return before[0], before[1]


def overwrite(path: Path, number: int, tiles: Sequence[int] | None = None) -> None:
    """Overwrite tiles of a page, all of them for None, with noise that no decoder takes."""
    with tifffile.TiffFile(path) as tiff:
        of = tiff.pages[number].aspage()
        places = [*zip(of.dataoffsets, of.databytecounts, strict=True)]
    noise = np.random.default_rng(5)
    with path.open("r+b") as file:
        for index in range(len(places)) if tiles is None else tiles:
            offset, count = places[index]
            file.seek(offset)
            file.write(b"\x11\0" + noise.bytes(count - 2))
