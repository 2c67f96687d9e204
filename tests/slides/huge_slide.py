"""Slides of gigapixels that take a moment and a few megabytes: all their tiles are the same two."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

TILE = 256
LEVELS = (1, 4, 16)
PX_PER_CM = 40_000
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
Share = tuple[float, float]


def write_huge_slide(path: Path, width: int, height: int, across: Share, down: Share) -> None:
    """Write a pyramid as a BigTIFF, 0.25 microns per pixel.

    Args:
        path: the file.
        width, height: pixels of level 0.
        across, down: where the tissue begins and ends, as shares of the sides; rounded to the tiles
            of each level.
    """
    noise = np.random.default_rng(1).integers(-12, 13, size=(TILE, TILE, 1))
    looks = [np.clip(np.array(colour) + noise, 0, 255) for colour in ((243,) * 3, (190, 90, 150))]
    streams = [zlib.compress(look.astype(np.uint8).tobytes()) for look in looks]
    data = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) + b"".join(streams)
    places = np.array([16, 16 + len(streams[0])]), np.array([len(stream) for stream in streams])
    link = 8
    for number, scale in enumerate(LEVELS):
        size = width // scale, height // scale
        columns, rows = (
            _inside(-(-side // TILE), share)
            for side, share in zip(size, (across, down), strict=True)
        )
        kind = np.logical_and.outer(rows, columns).astype(np.intp).ravel()
        tables = []
        for values in places:
            tables.append(len(data))
            data += values[kind].astype("<u8").tobytes()
        resolution = struct.unpack("<Q", struct.pack("<II", PX_PER_CM, scale))[0]
        tags = [
            (254, LONG, 1, int(number > 0)),
            (256, LONG, 1, size[0]),
            (257, LONG, 1, size[1]),
            (258, SHORT, 3, struct.unpack("<Q", struct.pack("<4H", 8, 8, 8, 0))[0]),
            (259, SHORT, 1, 8),
            (262, SHORT, 1, 2),
            (277, SHORT, 1, 3),
            (282, RATIONAL, 1, resolution),
            (283, RATIONAL, 1, resolution),
            (296, SHORT, 1, 3),
            (322, SHORT, 1, TILE),
            (323, SHORT, 1, TILE),
            *(
                (tag, LONG8, kind.size, place)
                for tag, place in zip((324, 325), tables, strict=True)
            ),
        ]
        # Where the directory before this one, or the header, has the place of the next.
        data = data[:link] + struct.pack("<Q", len(data)) + data[link + 8 :]
        data += struct.pack("<Q", len(tags))
        data += b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
        link = len(data)
        data += bytes(8)
    path.write_bytes(data)


def _inside(tiles: int, share: Share) -> npt.NDArray[np.bool_]:
    """Which tiles of an axis have their middle in it."""
    middle = (np.arange(tiles) + 0.5) / tiles
    return np.asarray((middle >= share[0]) & (middle < share[1]))
