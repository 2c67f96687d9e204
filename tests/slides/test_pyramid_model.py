"""Random pyramids against a slow reader that knows how each file was made.

The model has nothing of the readers: it is told which arrays are levels and what was left out, and
makes every pixel from these, one by one where something has to be filled.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.slides.readers.registry import open_slide, read_structure
from chunkdl.slides.slide import Pixels, Slide
from tests.slides.tiff_pages import (
    Page,
    aperio,
    averaged,
    edit_tiles,
    ome,
    ome_image,
    padded,
    page,
    size_of,
    write_tiff,
)

BACKGROUND = 255
FACTORS = (1, 2, 4, 8)
UNITS = {"CENTIMETER": 10_000, "INCH": 25_400}
COMPRESSIONS = (None, "zlib", "lzw", "zstd")
DEFAULTS: dict[str, Any] = {"resolution": (72, 72), "resolutionunit": "INCH"}


@dataclass(frozen=True, eq=False)
class Made:
    """A pyramid to be written.

    Attributes:
        kind: "marked", "unmarked", "svs", "subifds" or "images".
        size, seed: of level 0, (width, height).
        factors: of the levels, finest first.
        tile: side of the tiles.
        fill: whether reduced levels are filled up to whole tiles.
        mpp: of level 0, None where the tags are a writer's default.
        unit: of the tags.
        extras: pages that are no levels.
        order: a number that says in which order the pages come.
        gaps: (level, tile) that are absent.
        options: of tifffile, for all levels.
    """

    kind: str
    size: tuple[int, int]
    seed: int
    factors: tuple[int, ...]
    tile: int
    fill: bool
    mpp: float | None
    unit: str
    extras: tuple[str, ...]
    order: int
    gaps: frozenset[tuple[int, int]]
    options: dict[str, Any]

    @cached_property
    def base(self) -> Pixels:
        """Level 0: squares of 8 pixels, so that no average is rounded."""
        width, height = self.size
        rng = np.random.default_rng(self.seed)
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


@st.composite
def pyramids(draw: st.DrawFn) -> Made:
    kind = draw(st.sampled_from(["marked", "unmarked", "svs", "subifds", "images"]))
    tile = draw(st.sampled_from([16, 32, 48, 80]))
    factors = tuple(sorted({1, *draw(st.sets(st.sampled_from(FACTORS), max_size=3))}))
    # A slide of two tiles at least: filled up to a tile, a level is not a larger than level 0.
    sides = st.integers(tile // 4, tile // 4 + 20).map(lambda cells: 8 * cells)
    width, height = draw(sides), draw(sides)
    mpp = draw(st.sampled_from([0.25, 0.5, 1.0, None]))
    # Only tags can say how far a level of one tile is filled up.
    fill = mpp is not None and kind in ("marked", "svs") and draw(st.booleans())
    all_tiles = [
        (level, index)
        for level, factor in enumerate(factors)
        for index in range(math.prod(math.ceil(side // factor / tile) for side in (width, height)))
    ]
    # Where gaps are, in pages that can be found again: not in SubIFDs.
    gaps = st.sets(st.sampled_from(all_tiles), max_size=6) if kind != "subifds" else st.just(set())
    extras = st.sets(st.sampled_from(["label", "macro", "thumbnail"]))
    return Made(
        kind=kind,
        size=(width, height),
        seed=draw(st.integers(0, 2**32)),
        factors=factors,
        tile=tile,
        fill=fill,
        mpp=mpp,
        unit=draw(st.sampled_from(sorted(UNITS))),
        extras=tuple(sorted(draw(extras))),
        order=draw(st.integers(0, 2**16)),
        gaps=frozenset(draw(gaps)),
        options={
            "compression": draw(st.sampled_from(COMPRESSIONS)),
            "tile": (tile, tile),
            "predictor": draw(st.booleans()),
        },
    )


# ---- The file


def tags_of(made: Made, factor: int) -> dict[str, Any]:
    if made.mpp is None:
        return DEFAULTS
    per_unit = UNITS[made.unit] / (made.mpp * factor)
    return {"resolution": (per_unit, per_unit), "resolutionunit": made.unit}


def extra_page(made: Made, name: str) -> Page:
    """A label, or a macro that is larger than the slide, or a thumbnail of the slide's shape."""
    pixels = {
        "label": np.full((70, 50, 3), 90, np.uint8),
        "macro": np.full((100, 300, 3), 60, np.uint8),
        "thumbnail": made.base[::3, ::3],
    }[name]
    text = {"svs": f"Aperio Image Library v12\n{name} 1x1"}.get(made.kind, name)
    return page(np.ascontiguousarray(pixels), description=text, tile=(16, 16))


def write(made: Made, path: Path) -> list[int]:
    """Write the file; returns the number of the page of each level."""
    stored = [averaged(made.base, factor) if factor > 1 else made.base for factor in made.factors]
    if made.fill:
        stored = [stored[0], *(padded(one, made.tile, 30) for one in stored[1:])]
    size = size_of(made.base)
    marked = made.kind in ("marked", "subifds")
    options: list[dict[str, Any]] = [
        {
            **made.options,
            "predictor": 2 if made.options["predictor"] and made.options["compression"] else None,
            "subfiletype": int(marked and factor > 1),
            **tags_of(made, factor),
        }
        for factor in made.factors
    ]
    if made.options["compression"] == "zstd":
        options = [{**one, "predictor": None} for one in options]
    if made.kind == "svs":
        for one, pixels in zip(options, stored, strict=True):
            smaller = size_of(pixels) if pixels is not stored[0] else None
            fields = f"|AppMag = 20{f'|MPP = {made.mpp}' if made.mpp else ''}"
            one["description"] = aperio(size, smaller, fields)
    pages = [page(pixels, **one) for pixels, one in zip(stored, options, strict=True)]
    if made.kind == "subifds":
        pages = [replace(pages[0], below=tuple(pages[1:]))]
    everything = [*pages, *(extra_page(made, name) for name in made.extras)]
    names = [*(f"level {factor}" for factor in made.factors), *made.extras]
    if made.kind == "subifds":
        names = [names[0], *made.extras]
    places = [int(one) for one in np.random.default_rng(made.order).permutation(len(everything))]
    ordered = [everything[place] for place in places]
    if made.kind == "images":
        images = [
            ome_image(
                number,
                names[place],
                size_of(everything[place].pixels),
                made.mpp * made.factors[place] if made.mpp and place < len(pages) else None,
            )
            for number, place in enumerate(places)
        ]
        first = ordered[0]
        ordered[0] = replace(first, options={**first.options, "description": ome(*images)})
    write_tiff(path, *ordered)
    numbers = [places.index(level) for level in range(len(pages))]
    for level, tile in made.gaps:

        def leave_out(offsets: list[int], counts: list[int], tile: int = tile) -> None:
            offsets[tile] = counts[tile] = 0

        edit_tiles(path, numbers[level], leave_out)
    return numbers


# ---- The model


def level_pixels(made: Made, level: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """All pixels of a level, and which of them were filled in (shape (height, width), bool)."""
    factor = made.factors[level]
    pixels = (averaged(made.base, factor) if factor > 1 else made.base).copy()
    filled = np.zeros(pixels.shape[:2], np.bool_)
    across = math.ceil(pixels.shape[1] / made.tile)
    for tile in (tile for of, tile in made.gaps if of == level):
        row, column = divmod(tile, across)
        box = (
            slice(row * made.tile, (row + 1) * made.tile),
            slice(column * made.tile, (column + 1) * made.tile),
        )
        pixels[box], filled[box] = BACKGROUND, True
    if level and filled.any():
        finer, _ = level_pixels(made, level - 1)
        step = factor // made.factors[level - 1]
        for y, x in np.argwhere(filled):
            part = finer[y * step : (y + 1) * step, x * step : (x + 1) * step]
            pixels[y, x] = np.rint(part.reshape(-1, 3).mean(axis=0))
    return pixels, filled


def scanned_cells(made: Made) -> npt.NDArray[np.bool_]:
    """Which tiles of level 0 are in the file."""
    rows, columns = (math.ceil(side / made.tile) for side in made.base.shape[:2])
    gone = {tile for level, tile in made.gaps if level == 0}
    return np.array([index not in gone for index in range(rows * columns)]).reshape(rows, columns)


def check_levels(made: Made, slide: Slide) -> None:
    for index, factor in enumerate(made.factors):
        level = slide.info.levels[index]
        expected, filled = level_pixels(made, index)
        assert (level.height, level.width) == expected.shape[:2]
        assert level.downsample == pytest.approx(factor, rel=1e-6)
        out = np.full(expected.shape, 137, np.uint8)
        slide.read_into(out, index, 0, 0)
        np.testing.assert_array_equal(out[~filled], expected[~filled])
        # A mean of means is rounded once a level.
        assert np.abs(out[filled].astype(int) - expected[filled]).max(initial=0) <= 1 + index
        x, y = level.width // 3, level.height // 4
        part = np.full((level.height - y, level.width - x, 3), 137, np.uint8)
        slide.read_into(part, index, x, y)
        away = np.abs(part.astype(int) - expected[y:, x:])
        assert away.max() <= (1 + index if filled.any() else 0)


@given(made=pyramids())
@settings(max_examples=150)
def test_a_pyramid_is_read_as_it_was_made(made: Made) -> None:
    """Levels, sizes, downsamples, microns, gaps and every pixel; whatever else is in the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "made.svs" if made.kind == "svs" else "made.tif")
        numbers = write(made, path)
        structure = read_structure(path)
        assert len(structure.images) == 1
        stored = [f"directory {number}" for number in numbers]
        levels = [one.name for one in structure.pages if one.role == "level"]
        assert sorted(name for name in levels if "SubIFD" not in name) == sorted(stored)
        others = [one.role for one in structure.pages if one.role != "level"]
        assert sorted(others) == sorted(made.extras)
        with closing(open_slide(path)) as slide:
            assert len(slide.info.levels) == len(made.factors)
            expected_mpp = None if made.mpp is None else pytest.approx((made.mpp,) * 2, rel=1e-4)
            assert slide.info.mpp == expected_mpp
            check_levels(made, slide)
            cells, scanned = scanned_cells(made), slide.scanned()
            if cells.all():
                assert scanned is None
            else:
                assert scanned is not None
                np.testing.assert_array_equal(scanned.cells, cells)
                assert (scanned.cell_width, scanned.cell_height) == (made.tile, made.tile)
            assert sum(slide.gaps.counts.values()) >= len(made.gaps)
