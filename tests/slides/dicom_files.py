"""Small DICOM slides of every kind, written frame by frame."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid

from chunkdl.slides.slide import Pixels

WSM = "1.2.840.10008.5.1.4.1.1.77.1.6"
SERIES = "1.2.826.0.1.3680043.8.498.1"
ORIGINAL = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE")
RESAMPLED = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
MM = 0.0005


def run_lengths(plane: bytes) -> bytes:
    """A plane as PackBits that repeats nothing."""
    parts = [plane[at : at + 128] for at in range(0, len(plane), 128)]
    coded = b"".join(bytes([len(part) - 1]) + part for part in parts)
    return coded + bytes(len(coded) % 2)


def run_length_frame(tile: Pixels) -> bytes:
    """A frame in the RLE of DICOM: a header of 16 numbers, then the planes (PS3.5, annex G)."""
    planes = [run_lengths(tile[..., channel].tobytes()) for channel in range(3)]
    starts = np.cumsum([64, *(len(plane) for plane in planes)])[:3]
    return struct.pack("<16I", 3, *starts, *[0] * 12) + b"".join(planes)


CODINGS: dict[str, tuple[str, str, Callable[[Pixels], bytes | bytearray]]] = {
    "uncompressed": ("1.2.840.10008.1.2.1", "RGB", lambda tile: tile.tobytes()),
    "rle": ("1.2.840.10008.1.2.5", "RGB", run_length_frame),
    "jpeg": (
        "1.2.840.10008.1.2.4.50",
        "YBR_FULL_422",
        lambda tile: imagecodecs.jpeg8_encode(tile, level=95, subsampling="422"),
    ),
    "jpeg rgb": (
        "1.2.840.10008.1.2.4.50",
        "RGB",
        lambda tile: imagecodecs.jpeg8_encode(tile, level=98, outcolorspace="RGB"),
    ),
    "jpeg-ls": ("1.2.840.10008.1.2.4.80", "RGB", imagecodecs.jpegls_encode),
    "jpeg 2000": (
        "1.2.840.10008.1.2.4.90",
        "YBR_RCT",
        lambda tile: imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=True),
    ),
    "jpeg 2000 rgb": (
        "1.2.840.10008.1.2.4.90",
        "RGB",
        lambda tile: imagecodecs.jpeg2k_encode(tile, level=0, codecformat="j2k", mct=False),
    ),
    "htj2k": ("1.2.840.10008.1.2.4.201", "YBR_RCT", imagecodecs.htj2k_encode),
    "jpeg xl": (
        "1.2.840.10008.1.2.4.110",
        "RGB",
        lambda tile: imagecodecs.jpegxl_encode(tile, lossless=True),
    ),
}
"""Transfer syntax, photometric interpretation and encoder, by name."""


@dataclass(frozen=True)
class Made:
    """How a file is made.

    Attributes:
        coding: a name of CODINGS.
        frame: width and height of the frames.
        table: "none", "basic" or "extended".
        order: for a sparse file the tiles that it has, in stored order; None for a full one.
        part: (number, total, first frame, end) of a concatenation.
        mm: pixel spacing.
        fragments: items that each frame is cut into.
        stated: elements of the header that replace what is right, None takes the element away.
    """

    coding: str = "uncompressed"
    frame: tuple[int, int] = (256, 256)
    table: str = "none"
    order: Sequence[int] | None = None
    part: tuple[int, int, int, int] | None = None
    image_type: tuple[str, ...] = ORIGINAL
    series: str = SERIES
    mm: float = MM
    fragments: int = 1
    undefined_lengths: bool = False
    stated: Mapping[str, Any] = field(default_factory=dict)


def tiles_of(picture: Pixels, frame: tuple[int, int]) -> list[Pixels]:
    """The picture in whole frames, row by row; the last ones are filled with 7."""
    width, height = frame
    rows, columns = -(-picture.shape[0] // height), -(-picture.shape[1] // width)
    padded = np.full((rows * height, columns * width, 3), 7, np.uint8)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return [
        np.ascontiguousarray(padded[y : y + height, x : x + width])
        for y in range(0, rows * height, height)
        for x in range(0, columns * width, width)
    ]


def write_dicom(path: Path, picture: Pixels, made: Made = Made()) -> Path:
    """Write a picture as a file of a slide."""
    syntax, photometric, encode = CODINGS[made.coding]
    tiles = tiles_of(picture, made.frame)
    chosen = range(len(tiles)) if made.order is None else made.order
    if made.part is not None:
        chosen = chosen[made.part[2] : made.part[3]]
    data = _header(path, picture, made, syntax, photometric, len(chosen))
    if made.order is not None:
        across = -(-picture.shape[1] // made.frame[0])
        data.PerFrameFunctionalGroupsSequence = Items(
            [_frame_group(divmod(tile, across), made.frame) for tile in chosen]
        )
        data["PerFrameFunctionalGroupsSequence"].is_undefined_length = made.undefined_lengths
    frames = [bytes(encode(tiles[index])) for index in chosen]
    if made.coding == "uncompressed":
        pixels = b"".join(frames)
        data.PixelData = pixels + bytes(len(pixels) % 2)
        data["PixelData"].VR = "OB"
    else:
        _encapsulate(data, frames, made)
    for name, value in made.stated.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path, implicit_vr=False, little_endian=True, force_encoding=True)
    return path


def _header(
    path: Path, picture: Pixels, made: Made, syntax: str, photometric: str, frames: int
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(WSM)
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = UID(syntax)
    data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = WSM, meta.MediaStorageSOPInstanceUID
    data.ImageType = list(made.image_type)
    data.SeriesInstanceUID = made.series
    data.DimensionOrganizationType = "TILED_FULL" if made.order is None else "TILED_SPARSE"
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, photometric
    data.PlanarConfiguration = 0
    data.Columns, data.Rows = made.frame
    data.NumberOfFrames = frames
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = picture.shape[:2]
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [made.mm, made.mm]
    shared.PixelMeasuresSequence = Items([measures])
    data.SharedFunctionalGroupsSequence = Items([shared])
    if made.part is not None:
        data.ConcatenationUID = made.series + ".7"
        data.InConcatenationNumber, data.InConcatenationTotalNumber = made.part[:2]
        data.ConcatenationFrameOffsetNumber = made.part[2]
    return data


def _frame_group(place_in_grid: tuple[int, int], frame: tuple[int, int]) -> Dataset:
    row, column = place_in_grid
    group, content, place = Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [row + 1, column + 1]
    place.ColumnPositionInTotalImagePixelMatrix = column * frame[0] + 1
    place.RowPositionInTotalImagePixelMatrix = row * frame[1] + 1
    place.ZOffsetInSlideCoordinateSystem = 0
    group.FrameContentSequence = Items([content])
    group.PlanePositionSlideSequence = Items([place])
    return group


def _encapsulate(data: Dataset, frames: Sequence[bytes], made: Made) -> None:
    coded, starts = bytearray(), []
    for frame in frames:
        starts.append(len(coded))
        step = -(-len(frame) // made.fragments)
        step += step % 2
        for at in range(0, max(1, len(frame)), step or 1):
            part = frame[at : at + step]
            coded += struct.pack("<HHI", 0xFFFE, 0xE000, len(part) + len(part) % 2)
            coded += part + bytes(len(part) % 2)
    table = struct.pack(f"<{len(starts)}I", *starts) if made.table == "basic" else b""
    if made.table == "extended":
        data.ExtendedOffsetTable = struct.pack(f"<{len(starts)}Q", *starts)
        sizes = [len(frame) for frame in frames]
        data.ExtendedOffsetTableLengths = struct.pack(f"<{len(sizes)}Q", *sizes)
    first = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data.PixelData = first + bytes(coded) + end
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
