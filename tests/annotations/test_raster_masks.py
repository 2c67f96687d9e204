"""Pictures of class numbers become polygons that have exactly their pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from chunkdl.annotations import mending, raster_masks
from chunkdl.annotations import outlines as outlines_module
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.outlines import regions_of
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.reading import read_annotations
from chunkdl.annotations.shapes import Annotations
from chunkdl.errors import AnnotationError, ConfigError

TWO = ReadingOptions(mask_classes={1: "tumor", 2: "stroma"})


def blobs(height: int, width: int, values: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """A mask of rough blobs, with chessboards of single pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, values, (height // 4 + 1, width // 4 + 1), np.uint8)
    fine = np.kron(coarse, np.ones((4, 4), np.uint8))[:height, :width].copy()
    noise = rng.random(fine.shape) < 0.15
    fine[noise] = rng.integers(0, values, int(noise.sum()), np.uint8)
    return fine


def saved(
    folder: Path, mask: npt.NDArray[Any], name: str = "mask.png", palette: bool = False
) -> Path:
    """The mask as a picture."""
    image = Image.fromarray(mask)
    if palette:
        image.putpalette([7, 8, 9] * 256)
    image.save(folder / name)
    return folder / name


def pixels_of(
    annotations: Annotations, mask: npt.NDArray[Any], scale: float = 1
) -> npt.NDArray[np.uint8]:
    """The raster at the resolution of the mask, with its values."""
    height, width = mask.shape
    raster = rasterise(annotations, downsample=scale, origin=(0, 0), size=(width, height))
    values = {"tumor": 1, "stroma": 2}
    lookup = np.array([0, *(values[name] for name in annotations.classes)], np.uint8)
    return lookup[raster]


@pytest.mark.parametrize("scale", [1, 16, 7.3])
def test_the_raster_of_a_mask_is_the_mask(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any scale against level 0, pixel for pixel; nothing of it has to be mended."""
    monkeypatch.setattr(mending, "shapely_module", None)
    mask = blobs(90, 130, 3)
    size = (round(130 * scale), round(90 * scale))
    found = read_annotations(saved(tmp_path, mask), TWO, size=size)
    assert found.classes == ("stroma", "tumor")
    assert found.notes == ()
    height, width = mask.shape
    raster = rasterise(
        found, downsample=(size[0] / width, size[1] / height), origin=(0, 0), size=(width, height)
    )
    np.testing.assert_array_equal(np.array([0, 2, 1])[raster], mask)
    assert found.areas.sum() == pytest.approx((mask != 0).sum() * scale**2, rel=2e-3)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_outlines_go_around_regions_that_are_connected_by_their_sides(
    cells: npt.NDArray[np.bool_],
) -> None:
    """Each region once, the areas of its rings are its pixels, and no ring touches itself twice."""
    regions = regions_of(cells)
    labels = labelled(cells)
    assert len(regions) == labels.max()
    for number, rings in enumerate(regions, 1):
        areas = [signed_area(ring) for ring in rings]
        # Its first pixel is that of the label of its place in the order.
        assert abs(abs(areas[0]) - sum(map(abs, areas[1:]))) == (labels == number).sum()
        assert abs(areas[0]) == max(map(abs, areas))
        for ring in rings:
            steps = ring - np.roll(ring, 1, axis=0)
            assert ((steps != 0).sum(axis=1) == 1).all()


def labelled(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Regions by flooding, numbered by their first pixels."""
    labels = np.zeros(cells.shape, np.int64)
    number = 0
    for start in map(tuple, np.argwhere(cells)):
        if labels[start]:
            continue
        number += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < cells.shape[0] and 0 <= x < cells.shape[1]
            if inside and cells[y, x] and not labels[y, x]:
                labels[y, x] = number
                todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return labels


def signed_area(ring: npt.NDArray[np.int64]) -> float:
    """By the shoelace formula."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@pytest.mark.parametrize("kind", ["palette", "sixteen bits", "one bit", "tiff"])
def test_masks_of_every_kind_of_one_number_are_read(kind: str, tmp_path: Path) -> None:
    """Indices of a palette, 16 bits, black and white, TIFF of strips."""
    mask = blobs(40, 60, 3)
    options, name = TWO, "mask.png"
    shown: npt.NDArray[Any] = mask
    if kind == "sixteen bits":
        shown = mask.astype(np.uint16) * 300
        options = ReadingOptions(mask_classes={300: "tumor", 600: "stroma"})
    elif kind == "one bit":
        shown = mask == 1
        mask = shown.astype(np.uint8)
    elif kind == "tiff":
        name = "mask.tif"
    path = saved(tmp_path, shown, name, palette=kind == "palette")
    found = read_annotations(path, options, size=(60, 40))
    np.testing.assert_array_equal(pixels_of(found, mask), mask)


def test_of_a_large_pyramid_a_level_is_read_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finest; the whole picture is never in memory."""
    mask = np.kron(blobs(32, 48, 3), np.ones((16, 16), np.uint8))
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step in (1, 2, 4):
            tiff.write(mask[::step, ::step], tile=(128, 128), compression="deflate")
    whole = read_annotations(path, TWO, size=(768, 512))
    np.testing.assert_array_equal(pixels_of(whole, mask), mask)
    monkeypatch.setattr(raster_masks, "MOST_PIXELS", 3 * 128 * 192)
    small = read_annotations(path, TWO, size=(768, 512))
    np.testing.assert_array_equal(pixels_of(small, mask), mask)
    assert small.digest() == whole.digest()
    monkeypatch.setattr(raster_masks, "MOST_PIXELS", 100)
    with pytest.raises(AnnotationError, match="smallest level has more than"):
        read_annotations(path, TWO, size=(768, 512))
    with pytest.raises(AnnotationError, match="give a smaller one"):
        read_annotations(saved(tmp_path, mask), TWO, size=(768, 512))


def test_a_level_that_was_averaged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between 0 and 2 lies 1, which is a class."""
    mask = np.kron(blobs(32, 48, 2) * 2, np.ones((15, 15), np.uint8))
    mean = (mask.reshape(240, 2, 360, 2).mean(axis=(1, 3))).astype(np.uint8)
    assert set(np.unique(mean)) == {0, 1, 2}
    path = tmp_path / "mask.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level in (mask, mean):
            tiff.write(level, tile=(128, 128), compression="deflate")
    assert len(read_annotations(path, TWO, size=(720, 480)))
    monkeypatch.setattr(raster_masks, "MOST_PIXELS", 3 * 240 * 360)
    with pytest.raises(AnnotationError, match="was averaged"):
        read_annotations(path, TWO, size=(720, 480))


def test_values_of_no_class_are_refused(tmp_path: Path) -> None:
    """Averages at borders would be classes otherwise; 0 is none unless it is named."""
    mask = blobs(20, 30, 3)
    mask[3, 3] = 77
    path = saved(tmp_path, mask)
    with pytest.raises(AnnotationError, match="the values 77, which mask_classes does not name"):
        read_annotations(path, TWO, size=(30, 20))
    with pytest.raises(AnnotationError, match="give mask_classes"):
        read_annotations(path, size=(30, 20))
    zero = ReadingOptions(mask_classes={0: "glass", 1: "tumor", 2: "stroma", 77: "pen"})
    found = read_annotations(path, zero, size=(30, 20))
    assert found.areas.sum() == 600
    assert found.classes == ("glass", "pen", "stroma", "tumor")


def test_a_mask_of_another_slide_is_refused(tmp_path: Path) -> None:
    """By its aspect ratio: 1 % or a pixel may be off, and the size of the slide must be known."""
    path = saved(tmp_path, blobs(100, 150, 3))
    for size in ((15000, 10000), (15100, 10000), (15000, 10100)):
        assert len(read_annotations(path, TWO, size=size))
    with pytest.raises(AnnotationError, match="not a picture of this slide"):
        read_annotations(path, TWO, size=(15000, 10400))
    with pytest.raises(AnnotationError, match="size of the slide is not known"):
        read_annotations(path, TWO)
    with pytest.raises(AnnotationError, match="offset must be"):
        read_annotations(path, TWO, size=(15000, 10000), offset=(1, 0))
    tiny = saved(tmp_path, blobs(10, 15, 3), "tiny.png")
    assert len(read_annotations(tiny, TWO, size=(15900, 10000)))
    narrow = saved(tmp_path, blobs(300, 4, 3), "narrow.png")
    assert len(read_annotations(narrow, TWO, size=(4450, 300_000)))


def test_pictures_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    """Colours, alpha, damage; and outlines of noise."""
    colours = saved(tmp_path, np.zeros((9, 9, 3), np.uint8), "colours.png")
    with pytest.raises(AnnotationError, match="its pixels are RGB"):
        read_annotations(colours, TWO, size=(9, 9))
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(saved(tmp_path, blobs(50, 50, 3)).read_bytes()[:200])
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_annotations(damaged, TWO, size=(50, 50))


def test_ragged_masks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before their outlines are followed."""
    monkeypatch.setattr(outlines_module, "MOST_CORNERS", 100)
    with pytest.raises(AnnotationError, match="too ragged"):
        read_annotations(saved(tmp_path, blobs(50, 50, 3)), TWO, size=(50, 50))


@pytest.mark.parametrize("table", [{-1: "a"}, {"1": "a"}, {1: ""}, {True: "a"}, {2**16: "a"}])
def test_a_wrong_table_of_classes_is_refused(table: dict[Any, str]) -> None:
    """Where it is given."""
    with pytest.raises(ConfigError, match="mask_classes"):
        ReadingOptions(mask_classes=table)
