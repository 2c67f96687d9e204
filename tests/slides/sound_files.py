"""A small sound slide of every kind that is read, to be damaged by what looks for faults."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from chunkdl.slides.readers.codecs import Samples
from chunkdl.slides.slide import AS_STORED, PixelRule, Pixels
from tests.slides.dicom_files import CODINGS, RESAMPLED, Made, tiles_of, write_dicom
from tests.slides.test_described_formats import (
    encoding,
    patches,
    qpi,
    scn_image,
    scn_xml,
    write_bif,
    write_philips,
    write_scn,
)
from tests.slides.test_ndpi import write_large_ndpi

WIDTH, HEIGHT, TILE = 320, 256, 64
COMPRESSIONS = (
    *("lzw", "zlib", "packbits", "lzma", "zstd", "png", "webp", "jpegxl"),
    *("jpeg", "jpeg2000", "lerc", "jpegxr"),
)
WINDOW, CHANNELS = PixelRule(window=(0, 65535)), PixelRule(channels=(0, 1, 2))


@dataclass(frozen=True)
class Sound:
    """A sound slide.

    Attributes:
        name: what kind it is.
        file: name of the file to open.
        files: bytes of all of its files, by name.
        rule: with which it opens.
        opens: whether a reader takes it.
    """

    name: str
    file: str
    files: Mapping[str, bytes]
    rule: PixelRule = AS_STORED
    opens: bool = True


def picture() -> Pixels:
    """A picture of squares with a little noise."""
    noise = np.random.default_rng(2).integers(0, 8, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels: Pixels = (patches(7, 16, (HEIGHT, WIDTH)) & np.uint8(0xF8)) | noise
    return pixels


def sound_slides(folder: Path) -> list[Sound]:
    """One of each kind; they are written to the empty folder on the way."""
    found = []
    for kind, write in _TIFFS.items():
        path = folder / f"{kind.replace(' ', '-')}.tif"
        write(path)
        rule = WINDOW if "16 bits" in kind else CHANNELS if "channels" in kind else AS_STORED
        files = {path.name: path.read_bytes()}
        found.append(Sound(kind, path.name, files, rule, "overlaps" not in kind))
    for kind, series in _DICOMS.items():
        below = folder / kind.replace(" ", "-")
        below.mkdir()
        for number, (factor, made) in enumerate(series):
            write_dicom(below / f"{number}.dcm", picture()[::factor, ::factor], made)
        found.append(_of_folder(f"dicom {kind}", below, "0.dcm"))
    below = folder / "mirax"
    below.mkdir()
    write_mirax(below)
    return [*found, _of_folder("mirax", below, "slide.mrxs")]


def _of_folder(kind: str, folder: Path, first: str) -> Sound:
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Sound(kind, first, files)


# ---- TIFF


def _write(path: Path, pixels: Samples | None = None, **options: Any) -> None:
    pixels = picture() if pixels is None else pixels
    file = {key: options.pop(key) for key in ("bigtiff", "byteorder") if key in options}
    plain = {"photometric": "rgb", "tile": (TILE, TILE), "metadata": None, "software": False}
    with tifffile.TiffWriter(path, **file) as tiff:
        tiff.write(pixels, **{**plain, **options})
        for factor in (2, 4) if "tile" not in options else ():
            reduced = _reduced(pixels, factor)
            tiff.write(reduced, subfiletype=1, **{**plain, **options})


def _reduced(pixels: Samples, factor: int) -> Samples:
    planes_first = pixels.shape[0] == 3
    return pixels[:, ::factor, ::factor] if planes_first else pixels[::factor, ::factor]


def _aperio(path: Path, compression: str) -> None:
    options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "metadata": None}
    title = f"Aperio Image Library v1\r\n{WIDTH}x{HEIGHT} [0,0 {WIDTH}x{HEIGHT}] ({TILE}x{TILE})"
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 2):
            pixels = np.ascontiguousarray(picture()[::factor, ::factor])
            data: Any = pixels
            if compression != "jpeg":
                data = iter(_codestreams(pixels))
            tiff.write(
                data,
                shape=pixels.shape,
                dtype=np.uint8,
                compression=compression if compression == "jpeg" else 33005,
                description=f"{title} -> |AppMag = 20|MPP = 0.4990",
                iccprofile=bytes(200),
                subfiletype=0,
                **options,
            )
        tiff.write(picture()[:40, :60], description="Aperio\r\nlabel 60x40", metadata=None)


def _codestreams(pixels: Pixels) -> list[bytes]:
    return [
        bytes(imagecodecs.jpeg2k_encode(tile, codecformat="J2K", mct=False))
        for tile in tiles_of(pixels, (TILE, TILE))
    ]


def _ome(path: Path, pixels: Any, axes: str, photometric: str) -> None:
    options: dict[str, Any] = {"tile": (TILE, TILE), "compression": "zlib"}
    options["photometric"] = photometric
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as tiff:
        tiff.write(pixels, subifds=1, metadata=metadata, **options)
        tiff.write(_reduced(pixels, 2), subfiletype=1, **options)


def _qptiff(path: Path) -> None:
    plain: dict[str, Any] = {"tile": (TILE, TILE), "compression": "lzw", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        for factor, kind in ((1, "FullResolution"), (8, "Thumbnail"), (2, "ReducedResolution")):
            part = picture()[::factor, ::factor]
            tiff.write(part, description=qpi(kind), metadata=None, **plain)


def _scn(path: Path) -> None:
    areas = scn_image(
        "macro", (0, 0, 26564000, 76734000), [(0, 0, 0, 0, 60, 160)], "0.6"
    ) + scn_image(
        "one", (1000, 2000, 160000, 128000), [(1, 0, 0, 0, 320, 256), (2, 1, 0, 0, 80, 64)]
    )
    slide = picture()
    write_scn(path, scn_xml(areas), patches(5, 8, (160, 60)), slide, slide[::4, ::4])


_GREY16 = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
_PALETTE = np.arange(768, dtype=np.uint16).reshape(3, 256) * 80
_FINE = [(0.00025, 0.00025), (0.0005, 0.0005), (0.001, 0.001)]

_TIFFS: dict[str, Callable[[Path], object]] = {
    **{f"tiles {name}": partial(_write, compression=name) for name in COMPRESSIONS},
    "tiles": _write,
    "tiles with predictor": lambda path: _write(path, compression="lzw", predictor=2),
    "bigtiff": lambda path: _write(path, bigtiff=True, compression="jpeg"),
    "big-endian": lambda path: _write(path, byteorder=">", compression="zlib"),
    "strips": lambda path: _write(path, tile=None, rowsperstrip=16, compression="zlib"),
    "one raw strip": lambda path: _write(path, tile=None),
    "raw rows": lambda path: _write(path, tile=None, rowsperstrip=1),
    "planar": lambda path: _write(
        path, np.moveaxis(picture(), -1, 0), planarconfig="separate", compression="zlib"
    ),
    "16 bits": lambda path: _write(path, _GREY16, photometric="minisblack", compression="zlib"),
    "16 bits big-endian": lambda path: _write(
        path, _GREY16, photometric="minisblack", compression="lzw", byteorder=">"
    ),
    "palette": lambda path: _write(
        path, picture()[..., 0], photometric="palette", colormap=_PALETTE, tile=None
    ),
    "rgba": lambda path: _write(
        path, np.dstack([picture(), picture()[..., :1]]), extrasamples=[2], compression="zlib"
    ),
    "aperio jpeg": lambda path: _aperio(path, "jpeg"),
    "aperio jpeg 2000": lambda path: _aperio(path, "33005"),
    "ome": lambda path: _ome(path, picture(), "YXS", "rgb"),
    "ome of channels": lambda path: _ome(
        path, np.moveaxis(picture(), -1, 0).copy(), "CYX", "minisblack"
    ),
    "philips": lambda path: write_philips(path, _FINE, absent=(1, 12), label=True),
    "scn": _scn,
    "qptiff": _qptiff,
    "bif": lambda path: write_bif(path, encoding(7, 4)),
    "bif that overlaps": lambda path: write_bif(path, encoding(7, 4, overlap=24)),
    "ndpi": lambda path: write_large_ndpi(path, picture()[:, :256], at=16),
}


# ---- DICOM

_PARTS = [Made(part=(number + 1, 2, 10 * number, 10 + 10 * number)) for number in range(2)]
_SMALL = (TILE, TILE)

_DICOMS: dict[str, list[tuple[int, Made]]] = {
    **{coding: [(1, Made(coding=coding, frame=_SMALL))] for coding in CODINGS},
    "two levels": [
        (1, Made(frame=_SMALL)),
        (2, Made(frame=_SMALL, image_type=RESAMPLED, mm=0.001)),
    ],
    "sparse": [(1, Made(coding="jpeg", frame=_SMALL, order=(3, 1, 0, 2, 7, 9)))],
    "sparse without lengths": [
        (1, Made(coding="jpeg", frame=_SMALL, order=(3, 1, 0), undefined_lengths=True))
    ],
    "basic table": [(1, Made(coding="jpeg", frame=_SMALL, table="basic", fragments=2))],
    "extended table": [(1, Made(coding="jpeg", frame=_SMALL, table="extended"))],
    "concatenated": [
        (1, Made(coding="rle", frame=_SMALL, part=part.part, stated={})) for part in _PARTS
    ],
}


# ---- MIRAX, which OpenSlide alone reads


def write_mirax(folder: Path) -> None:
    """A MIRAX slide of 2 x 2 pictures on one level: a picture, a text, an index and a data file."""
    jpegs = [
        bytes(imagecodecs.jpeg8_encode(np.full((TILE, TILE, 3), 60 * number, np.uint8)))
        for number in range(4)
    ]
    below = folder / "slide"
    below.mkdir()
    (folder / "slide.mrxs").write_bytes(jpegs[0])
    name = "ABCDEF0123456789ABCDEF0123456789"
    (below / "Slidedat.ini").write_bytes(b"\xef\xbb\xbf" + _mirax_text(name).encode())
    data, places = bytearray(b"01.02" + name.encode() + bytes(20)), []
    for jpeg in jpegs:
        places.append((len(data), len(jpeg)))
        data += jpeg
    (below / "Data0000.dat").write_bytes(data)
    # Version and name, the roots of both trees, then records that each point at a list of pages.
    head = 5 + len(name) + 8
    records, page = head, head + 8
    entries = b"".join(
        struct.pack("<4i", number // 2 * 2 + number % 2, at, length, 0)
        for number, (at, length) in enumerate(places)
    )
    index = b"01.02" + name.encode() + struct.pack("<2i", records, records + 4)
    index += struct.pack("<2i", page, 0)
    index += struct.pack("<2i", 0, page + 8)
    index += struct.pack("<2i", len(places), 0) + entries
    (below / "Index.dat").write_bytes(index)


def _mirax_text(name: str) -> str:
    return "\r\n".join(
        [
            "[GENERAL]",
            f"SLIDE_ID={name}",
            "SLIDE_VERSION=01.02",
            "IMAGENUMBER_X=2",
            "IMAGENUMBER_Y=2",
            "OBJECTIVE_MAGNIFICATION=20",
            "CAMERAIMAGEDIVISIONSPERSIDE=1",
            "CameraImageDivisionsPerSide=1",
            "[HIERARCHICAL]",
            "HIER_COUNT=1",
            "NONHIER_COUNT=0",
            "INDEXFILE=Index.dat",
            "HIER_0_NAME=Slide zoom level",
            "HIER_0_COUNT=1",
            "HIER_0_VAL_0=ZoomLevel_0",
            "HIER_0_VAL_0_SECTION=LAYER_0_LEVEL_0_SECTION",
            "[DATAFILE]",
            "FILE_COUNT=1",
            "FILE_0=Data0000.dat",
            "[LAYER_0_LEVEL_0_SECTION]",
            "OVERLAP_X=0.0",
            "OVERLAP_Y=0.0",
            "MICROMETER_PER_PIXEL_X=0.5",
            "MICROMETER_PER_PIXEL_Y=0.5",
            "IMAGE_FORMAT=JPEG",
            "IMAGE_FILL_COLOR_BGR=16777215",
            f"DIGITIZER_WIDTH={TILE}",
            f"DIGITIZER_HEIGHT={TILE}",
            "IMAGE_CONCAT_FACTOR=0",
            "",
        ]
    )
