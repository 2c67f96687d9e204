"""The readers on real slides: the same pixels as two independent decoders, and the same facts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
from PIL import Image

from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.readers.tiff import open_tiff
from chunkdl.slides.slide import PixelRule, Pixels, Slide

pytestmark = pytest.mark.slides

Read = Callable[[Slide, int, int, int, int, int], Pixels]

TIFF_SLIDES = (
    "CMU-1-Small-Region.svs",
    "OS-1-detail.ome.tif",
    "TCGA-CR-7395-01A-01-TS1.svs",
    "breast-her2-cish-20x.ome.tif",
    "colon-adenoma-20x-tile1024.tif",
    "liver-biopsy-20x-jp2k.svs",
    "lung-scc-biopsy-gt450-20x.svs",
    "lung-scc-biopsy-gt450-40x.svs",
    "skin-molluscum-20x-generic.tiff",
)
OPENSLIDE_REFUSES = {"OS-1-detail.ome.tif"}
ONLY_BASE_IN_OPENSLIDE = {"breast-her2-cish-20x.ome.tif"}
OTHER_SLIDES = ("hamamatsu-test3-dapi-387.ndpi", "CMU-1-Small-Region-dicom")
REGIONS = 200


def regions(
    seed: int, xs: npt.NDArray[np.int64], ys: npt.NDArray[np.int64], size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """REGIONS random regions of 64 to 300 pixels with corners out of xs and ys."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(REGIONS):
        width, height = (min(int(rng.integers(64, 301)), length) for length in size)
        x = int(rng.choice(xs[xs <= size[0] - width]))
        y = int(rng.choice(ys[ys <= size[1] - height]))
        found.append((x, y, width, height))
    return found


def on_white(image: Image.Image) -> npt.NDArray[np.float64]:
    """An RGBA image of OpenSlide on white: where it lies between pixels, borders shine through."""
    rgba = np.asarray(image).astype(float)
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + 255 * (1 - alpha))


def truth_of(page: tifffile.TiffPage) -> Callable[[int, int, int, int], Pixels]:
    """Reads regions of a page through tifffile's own decoding of single tiles."""
    across = -(-page.imagewidth // page.tilewidth)

    @lru_cache(maxsize=256 * 2**20 // (page.tilewidth * page.tilelength * 12))
    def tile(index: int) -> Pixels:
        handle = page.parent.filehandle
        shape = (page.tilelength, page.tilewidth, 3)
        if not page.databytecounts[index]:
            return np.full(shape, 255, np.uint8)
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        pixels = page.decode(data, index, jpegtables=page.jpegtables)[0]
        assert pixels is not None
        return np.asarray(pixels).reshape(-1, *pixels.shape[-2:])

    def region(x: int, y: int, width: int, height: int) -> Pixels:
        out = np.empty((height, width, 3), np.uint8)
        for top in range(y // page.tilelength * page.tilelength, y + height, page.tilelength):
            for left in range(x // page.tilewidth * page.tilewidth, x + width, page.tilewidth):
                pixels = tile(top // page.tilelength * across + left // page.tilewidth)
                y0, x0 = max(y, top), max(x, left)
                y1 = min(y + height, top + pixels.shape[0])
                x1 = min(x + width, left + pixels.shape[1])
                out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[
                    y0 - top : y1 - top, x0 - left : x1 - left
                ]
        return out

    return region


def pages_of(tiff: tifffile.TiffFile) -> dict[tuple[int, int], tifffile.TiffPage]:
    """All tiled pages and SubIFDs by their size."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
    pages += [page for page in pages[0].pages or () if isinstance(page, tifffile.TiffPage)]
    return {(page.imagewidth, page.imagelength): page for page in pages if page.is_tiled}


@pytest.mark.parametrize("name", TIFF_SLIDES)
def test_every_pixel_is_the_one_that_tifffile_decodes(
    name: str, slides_folder: Path, read_region: Read
) -> None:
    """200 random regions of every level, bit for bit."""
    with (
        closing(open_tiff(slides_folder / name)) as slide,
        tifffile.TiffFile(slides_folder / name) as tiff,
    ):
        pages = pages_of(tiff)
        assert len(slide.info.levels) == len(pages)
        for index, level in enumerate(slide.info.levels):
            truth = truth_of(pages[level.width, level.height])
            xs, ys = np.arange(level.width), np.arange(level.height)
            for x, y, w, h in regions(index, xs, ys, (level.width, level.height)):
                np.testing.assert_array_equal(
                    read_region(slide, index, x, y, w, h), truth(x, y, w, h)
                )


@pytest.mark.parametrize("name", sorted(set(TIFF_SLIDES) - OPENSLIDE_REFUSES))
def test_levels_downsamples_and_mpp_are_those_of_openslide(name: str, slides_folder: Path) -> None:
    """A user may change the reader without changing a location."""
    with (
        closing(open_tiff(slides_folder / name)) as slide,
        closing(open_slide(slides_folder / name, "openslide")) as other,
    ):
        mine, theirs = slide.info, other.info
    levels = len(theirs.levels)
    assert mine.levels[:levels] == theirs.levels
    assert len(mine.levels) == levels or name in ONLY_BASE_IN_OPENSLIDE
    assert mine.mpp == pytest.approx(theirs.mpp) if theirs.mpp else mine.mpp is None


def test_an_ome_tiff_that_openslide_refuses_has_its_mpp(slides_folder: Path) -> None:
    """It comes from the file's XML or its resolution."""
    with closing(open_slide(slides_folder / "OS-1-detail.ome.tif")) as slide:
        assert slide.info.reader == "tiff"
        assert slide.info.mpp == pytest.approx((0.2271, 0.2271), abs=1e-4)


@pytest.mark.parametrize("name", sorted(set(TIFF_SLIDES) - OPENSLIDE_REFUSES))
def test_pixels_are_those_of_openslide(name: str, slides_folder: Path, read_region: Read) -> None:
    """200 regions a level where OpenSlide's level-0 place is a whole pixel of the level.

    Both decode with libjpeg-turbo or OpenJPEG, but OpenSlide's copies differ in version and in
    the upsampling of colour at the edges of tiles: mean difference below 1 grey level, 99 % of
    the values within 3.
    """
    with (
        closing(open_tiff(slides_folder / name)) as slide,
        closing(openslide.OpenSlide(slides_folder / name)) as other,
    ):
        for index in range(other.level_count):
            level = slide.info.levels[index]
            places = [np.arange(n) * level.downsample for n in (level.width, level.height)]
            # A place this near to a level-0 pixel makes no visible interpolation.
            xs, ys = (np.flatnonzero(np.abs(p - np.rint(p)) < 0.02) for p in places)
            for x, y, w, h in regions(index, xs, ys, (level.width, level.height)):
                origin = round(x * level.downsample), round(y * level.downsample)
                got = read_region(slide, index, x, y, w, h)
                away = np.abs(got - on_white(other.read_region(origin, index, (w, h))))
                assert away.mean() < 1
                assert (away <= 3).mean() > 0.99


@pytest.mark.parametrize("name", OTHER_SLIDES)
def test_the_reader_openslide_has_openslides_pixels_on_the_background(
    name: str, slides_folder: Path, read_region: Read
) -> None:
    """NDPI and DICOM: 40 regions of level 0 and of every level with a whole downsample."""
    path = slides_folder / name
    file = sorted(path.iterdir())[0] if path.is_dir() else path
    rule = PixelRule(channels=(0, 1, 2))  # One of them is fluorescence.
    with closing(open_slide(path, "openslide", rule)) as slide, openslide.OpenSlide(file) as other:
        assert [(v.width, v.height) for v in slide.info.levels] == list(other.level_dimensions)
        assert [v.downsample for v in slide.info.levels] == list(other.level_downsamples)
        for index, level in enumerate(slide.info.levels):
            if level.downsample % 1:
                continue
            xs, ys = np.arange(level.width), np.arange(level.height)
            for x, y, w, h in regions(index, xs, ys, (level.width, level.height))[:40]:
                origin = round(x * level.downsample), round(y * level.downsample)
                expected = on_white(other.read_region(origin, index, (w, h)))
                got = read_region(slide, index, x, y, w, h)
                assert np.abs(got - expected).max() <= 1.01


def test_a_dicom_slide_is_its_folder_or_any_of_its_files(
    slides_folder: Path, read_region: Read
) -> None:
    """Folder and file give the same slide."""
    folder = slides_folder / "CMU-1-Small-Region-dicom"
    file = sorted(folder.glob("*.dcm"))[3]
    with closing(open_slide(folder)) as one, closing(open_slide(file)) as two:
        assert one.info.levels == two.info.levels
        assert one.info.mpp == pytest.approx((0.499, 0.499))
        np.testing.assert_array_equal(
            read_region(one, 0, 700, 800, 99, 88), read_region(two, 0, 700, 800, 99, 88)
        )
