"""Which pictures of a TIFF are levels of one slide, and how large they really are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from chunkdl.slides.readers.directories import Directory
from chunkdl.slides.slide import Level
from chunkdl.slides.structure import same_aspect

RESOLUTION_TOLERANCE = 0.02
"""Relative difference up to which two downsamples are the same."""
POWERS = tuple(2.0**power for power in range(1, 16))
"""The downsamples of nearly all writers."""


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """The levels of one slide.

    Attributes:
        directories: of the levels, finest first.
        levels: their true sizes and downsamples.
        reasons: for each level half a sentence, why it is one.
        rejected: by the name of a directory that is not a level, why not.
    """

    directories: tuple[Directory, ...]
    levels: tuple[Level, ...]
    reasons: tuple[str, ...]
    rejected: dict[str, str]


def pyramid(base: Directory, candidates: Sequence[Directory]) -> Pyramid:
    """The levels of the slide whose finest picture is `base`.

    A level has the pixels of `base` in kind, its shape, and a size of its own.

    Args:
        base: level 0.
        candidates: what may be a level of it, in any order.
    """
    found: list[tuple[Directory, Level, str]] = [(base, _level(base, base.size, 1.0), "the finest")]
    rejected: dict[str, str] = {}
    fitting: list[tuple[Directory, Level, str]] = []
    for directory in candidates:
        if (directory.samples, directory.bits) != (base.samples, base.bits):
            rejected[directory.name] = (
                f"{directory.samples} x {directory.bits} bit, level 0 has "
                f"{base.samples} x {base.bits}"
            )
        elif directory.width * directory.height >= base.width * base.height:
            rejected[directory.name] = "it is as large as level 0"
        elif (shape := true_shape(base, directory)) is None:
            rejected[directory.name] = (
                f"its shape, {directory.width}x{directory.height}, is not that of level 0, "
                f"{base.width}x{base.height}"
            )
        else:
            level = _level(directory, shape.size, shape.downsample)
            fitting.append((directory, level, shape.why))
    # By the true sizes: filled up to one tile, two levels are as large as each other in the file.
    for directory, level, why in sorted(fitting, key=lambda one: -one[1].width):
        taken = next((n for n, other in enumerate(found) if _alike(other[1], level)), None)
        if taken is None:
            found.append((directory, level, why))
        else:
            rejected[directory.name] = f"it is as large as level {taken}"
    directories, levels, reasons = zip(*found, strict=True)
    return Pyramid(directories, levels, reasons, rejected)


def _alike(one: Level, other: Level) -> bool:
    return abs(one.width - other.width) <= 1 and abs(one.height - other.height) <= 1


def _level(directory: Directory, size: tuple[int, int], downsample: float) -> Level:
    tile_w = directory.tile_width or size[0]
    tile_h = directory.tile_height or max(1, directory.rows_per_strip)
    return Level(size[0], size[1], downsample, tile_w, tile_h)


@dataclass(frozen=True, slots=True)
class TrueShape:
    """What a reduced picture shows of level 0.

    Attributes:
        size: (width, height) of the part that shows the slide.
        downsample: level-0 pixels per pixel.
        why: half a sentence.
    """

    size: tuple[int, int]
    downsample: float
    why: str


def true_shape(base: Directory, directory: Directory) -> TrueShape | None:
    """The shape of a picture as a level of `base`, None where it cannot be one.

    Some writers fill reduced levels up to whole tiles, so that the ratios of widths and heights
    are no downsamples: 1.83 where 2 is meant puts a patch hundreds of pixels away. Such a level is
    known by a size of whole tiles that is just what a downsample needs, either the one that its
    own resolution tags say or a power of two.
    """
    across, down = base.width / directory.width, base.height / directory.height
    as_stored = TrueShape(directory.size, (across + down) / 2, "its shape is that of level 0")
    by_tags = _downsample_by_tags(base, directory)
    padded = [factor for factor in POWERS if _fills_tiles(base, directory, factor)]
    whole = whole_factor(base, directory)
    if whole is not None:
        if by_tags is None:
            # A whole number that is not a power of two may be a fuller level's, cut by its padding.
            return as_stored if whole in POWERS or not padded else None
        if whole in POWERS and by_tags not in POWERS:
            return as_stored
    shaped = same_aspect(directory.size, base.size)
    if by_tags is not None:
        if shaped and abs(by_tags / as_stored.downsample - 1) <= RESOLUTION_TOLERANCE:
            return as_stored
        return _padded(base, by_tags, "its resolution tags say")
    if shaped:
        # A level of this size may also be filled up, and then the ratio is wrong.
        return None if padded else as_stored
    return _padded(base, padded[0], "only fits") if len(padded) == 1 else None


def whole_factor(base: Directory, directory: Directory) -> int | None:
    """The whole number that the sides of `base` were divided by, rounded either way; else None.

    Sides of few pixels fit several; a power of two is the likely one.
    """
    sides = tuple(zip(base.size, directory.size, strict=True))
    ratios = [full / side for full, side in sides]
    mean = (ratios[0] * ratios[1]) ** 0.5
    nearest: int = 2 ** max(0, round(math.log2(mean)))
    for factor in (nearest, *(max(1, round(one)) for one in ratios)):
        if all(abs(full / factor - side) <= 1 for full, side in sides):
            return factor
    return None


def _padded(base: Directory, factor: float, source: str) -> TrueShape:
    size = max(1, int(base.width / factor + 1e-6)), max(1, int(base.height / factor + 1e-6))
    return TrueShape(size, factor, f"filled up to whole tiles, {source} downsample {factor:.6g}")


def _fills_tiles(base: Directory, directory: Directory, factor: float) -> bool:
    """Whether the size is that of level 0 divided by `factor`, filled up to whole tiles."""
    pairs = (
        (base.width, directory.width, directory.tile_width),
        (base.height, directory.height, directory.tile_height),
    )
    return all(
        tile > 0 and stored % tile == 0 and stored - tile < full / factor <= stored + 1e-6
        for full, stored, tile in pairs
    )


def _downsample_by_tags(base: Directory, directory: Directory) -> float | None:
    """The ratio of the resolutions, None where the tags do not say one that the size can have.

    A ratio near a power of two is that.
    """
    if base.resolution is None or directory.resolution is None:
        return None
    if base.resolution_unit != directory.resolution_unit:
        return None
    across = base.resolution[0] / directory.resolution[0]
    down = base.resolution[1] / directory.resolution[1]
    if min(across, down) <= 1 or abs(across / down - 1) > RESOLUTION_TOLERANCE:
        return None
    factor = (across + down) / 2
    power = next((one for one in POWERS if abs(factor / one - 1) <= RESOLUTION_TOLERANCE), None)
    if power is not None and _fills_tiles(base, directory, power):
        return power
    sides = tuple(zip(base.size, directory.size, strict=True))
    # One tile holds any coarser picture, also one that only the default of a writer speaks of.
    filled = any(full / factor > side / 2 for full, side in sides)
    return factor if filled and _fits(base, directory, factor) else None


def _fits(base: Directory, directory: Directory, factor: float) -> bool:
    """Whether level 0 divided by `factor` has that size, as it is or filled up to whole tiles."""
    sides = zip(base.size, directory.size, strict=True)
    return _fills_tiles(base, directory, factor) or all(
        abs(full / factor - side) <= 1 for full, side in sides
    )
