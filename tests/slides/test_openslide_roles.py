"""The reader 'openslide' takes no label for a level, narrows nothing, knows what was scanned."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers import known_to_us
from chunkdl.slides.readers import openslide as reader
from chunkdl.slides.readers.openslide import OpenSlideSlide
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import PixelRule, Pixels, Slide
from tests.slides.dicom_files import SERIES, Made, write_dicom
from tests.slides.tiff_pages import (
    TILE,
    aperio,
    averaged,
    edit_tiles,
    ome,
    ome_image,
    padded,
    page,
    reduced,
    size_of,
    write_tiff,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]


def sizes_of(slide: Slide) -> list[tuple[int, int]]:
    return [(level.width, level.height) for level in slide.info.levels]


def test_a_tiled_label_that_openslide_takes_for_a_level_is_none(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """OpenSlide calls it level 1; here the levels are those of the direct reader, in its order."""
    size, small = size_of(picture), np.ascontiguousarray(picture[::4, ::4])
    label = np.full((400, 300, 3), 200, np.uint8)
    path = write_tiff(
        tmp_path / "a.svs",
        page(picture, description=aperio(size)),
        page(label, description="Aperio Image Library v12\nlabel 300x400", subfiletype=1),
        page(small, description=aperio(size, size_of(small))),
    )
    with openslide.OpenSlide(path) as other:
        assert (300, 400) in other.level_dimensions
    with closing(OpenSlideSlide(path)) as slide:
        assert sizes_of(slide) == [(900, 700), (225, 175)]
        np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 225, 175), small)
        np.testing.assert_array_equal(read_region(slide, 0, 5, 7, 99, 88), picture[7:95, 5:104])


def test_levels_that_are_filled_up_to_tiles_have_their_true_size_and_downsample(
    tmp_path: Path, picture: Pixels
) -> None:
    """OpenSlide has the stored size and the ratio of it, 1.83 to 1."""
    levels = [page(padded(averaged(picture, factor)), subfiletype=1) for factor in (2, 4)]
    path = write_tiff(tmp_path / "a.tif", page(picture), *levels)
    with openslide.OpenSlide(path) as other:
        assert other.level_downsamples[1] != 2
    with closing(OpenSlideSlide(path)) as slide:
        assert sizes_of(slide) == [(900, 700), (450, 350), (225, 175)]
        assert [level.downsample for level in slide.info.levels] == [1, 2, 4]


def test_a_macro_that_comes_first_is_not_read_for_the_slide(
    tmp_path: Path, picture: Pixels
) -> None:
    """OpenSlide takes the first page of an OME-TIFF: refused, and read by the direct reader."""
    macro = np.full((500, 1400, 3), 230, np.uint8)
    xml = ome(ome_image(0, "macro", (1400, 500), 16), ome_image(1, "", size_of(picture), 0.5))
    path = write_tiff(tmp_path / "a.ome.tif", page(macro, description=xml), page(picture))
    with openslide.OpenSlide(path) as other:
        assert other.dimensions == (1400, 500)
    with pytest.raises(SlideError, match="no level"):
        open_slide(path, "openslide")
    with closing(open_slide(path)) as slide:
        assert slide.info.reader == "tiff"
        assert sizes_of(slide) == [(900, 700)]


def test_one_of_several_slides_is_left_to_the_direct_reader(
    tmp_path: Path, picture: Pixels
) -> None:
    """OpenSlide would show the first one, whichever was chosen."""
    path = write_tiff(tmp_path / "two.tif", page(picture), page(np.rot90(picture).copy()))
    for image in (0, 1):
        with pytest.raises(SlideError, match=r"2 slides.*use the reader 'auto'"):
            open_slide(f"{path}#image={image}", "openslide")


@pytest.mark.parametrize("depth", [8, 16])
def test_nothing_is_narrowed_or_made_grey_by_openslide(
    depth: int, tmp_path: Path, picture: Pixels
) -> None:
    """Sixteen bits, and planes of one sample; whatever rule is given, for it would not be kept."""
    grey = picture[..., 0].astype(np.uint16) * 257 if depth == 16 else picture[..., 0]
    path = write_tiff(tmp_path / "a.tif", page(grey))
    for rule in (PixelRule(), PixelRule(window=(0, 65535)), PixelRule(channels=(0,))):
        with pytest.raises(SlideError, match="bits: use the reader 'auto' or 'tiff'"):
            open_slide(path, "openslide", rule)


def test_one_of_two_dicom_series_is_left_to_the_direct_reader(
    tmp_path: Path, picture: Pixels
) -> None:
    """OpenSlide would read the one whose first file comes first, whichever was chosen."""
    write_dicom(tmp_path / "a.dcm", picture)
    write_dicom(tmp_path / "b.dcm", picture, Made(series=SERIES + ".2"))
    for name in (tmp_path, f"{tmp_path}#image=1"):
        with pytest.raises(SlideError, match="slides"):
            open_slide(name, "openslide")


def test_an_image_that_openslide_does_not_know_of_is_not_passed_over(tmp_path: Path) -> None:
    """A file of another format with #image=1: nobody reads its first slide instead."""
    path = tmp_path / "a.vms"
    path.write_text("[Virtual Microscope Specimen]\n", "ascii")
    with pytest.raises(SlideError, match=r"OpenSlide shows one slide of a file.*#image=K"):
        open_slide(f"{path}#image=1", "openslide")


# ---- What was scanned


def sparse(path: Path, picture: Pixels, gone: list[int]) -> Path:
    """Levels 1 and 4 of a slide of which tiles of level 0, and those of level 1 over it, lack."""
    even = np.ascontiguousarray(picture[:512, :768])
    write_tiff(path, page(even), reduced(even, 4))

    def leave_out(offsets: list[int], counts: list[int]) -> None:
        for tile in gone:
            offsets[tile] = counts[tile] = 0

    edit_tiles(path, 0, leave_out)
    return path


def test_a_slide_that_is_opaque_was_scanned_everywhere(tmp_path: Path, picture: Pixels) -> None:
    """None says so."""
    with closing(OpenSlideSlide(sparse(tmp_path / "a.tif", picture, []))) as slide:
        assert slide.scanned() is None


def test_tiles_of_level_0_that_are_not_in_the_file_were_not_scanned(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """By the tables of the file, however large level 0 is and whatever a coarse level shows."""
    path = sparse(tmp_path / "a.tif", picture, [0, 25])
    with closing(OpenSlideSlide(path)) as slide:
        scanned = slide.scanned()
        assert scanned is not None
        assert (scanned.cell_width, scanned.cell_height) == (TILE, TILE)
        expected = np.ones((8, 12), np.bool_)
        expected[0, 0] = expected[2, 1] = False
        np.testing.assert_array_equal(scanned.cells, expected)
        assert (read_region(slide, 0, 0, 0, TILE, TILE) == 255).all()


def test_what_openslide_shows_transparent_was_not_scanned(
    tmp_path: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the tables of a file are not known: the pixels that are transparent, each a cell."""
    path = sparse(tmp_path / "a.tif", picture, [0, 25])
    monkeypatch.setattr(known_to_us, "SAME_FRAME", ())
    with closing(OpenSlideSlide(path)) as slide:
        scanned = slide.scanned()
    assert scanned is not None
    assert (scanned.cell_width, scanned.cell_height) == (1, 1)
    expected = np.ones((512, 768), np.bool_)
    expected[:TILE, :TILE] = expected[2 * TILE : 3 * TILE, TILE : 2 * TILE] = False
    np.testing.assert_array_equal(scanned.cells, expected)


def test_a_large_level_is_left_to_a_smaller_one(
    tmp_path: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finest level that is small enough, in level-0 pixels; none is as good as opaque."""
    even = np.ascontiguousarray(picture[:512, :768])
    path = write_tiff(tmp_path / "a.tif", page(even), reduced(even, 4))

    def leave_out(offsets: list[int], counts: list[int]) -> None:
        offsets[0] = counts[0] = 0

    edit_tiles(path, 1, leave_out)
    monkeypatch.setattr(reader, "MOST_SCANNED_PX", 200_000)
    monkeypatch.setattr(reader, "BLOCK_PX", 192 * 10)
    with closing(OpenSlideSlide(path)) as slide:
        scanned = slide.scanned()
    assert scanned is not None
    assert scanned.cells.shape == (128, 192)
    assert (scanned.cell_width, scanned.cell_height) == (4, 4)
    assert not scanned.cells[:TILE, :TILE].any()
    assert scanned.cells[TILE:].all()
    monkeypatch.setattr(reader, "MOST_SCANNED_PX", 1_000)
    with closing(OpenSlideSlide(path)) as slide:
        assert slide.scanned() is None


@pytest.mark.slides
def test_of_a_glass_without_a_small_level_the_named_areas_were_scanned(
    slides_folder: Path,
) -> None:
    """A Leica file as OpenSlide shows it: one area of 6400x5632 on a glass of 52665x152130."""
    with closing(OpenSlideSlide(slides_folder / "gallbladder-leica-20x.scn")) as slide:
        scanned = slide.scanned()
    assert scanned is not None
    rows, columns = np.nonzero(scanned.cells)
    side = scanned.cell_width
    left, right = columns.min() * side, (columns.max() + 1) * side
    top, bottom = rows.min() * side, (rows.max() + 1) * side
    assert abs(left - 17792) <= side
    assert abs(right - (17792 + 6400)) <= side
    assert abs(top - 66496) <= side
    assert abs(bottom - (66496 + 5632)) <= side


@pytest.mark.slides
@pytest.mark.parametrize("reader", ["auto", "tiff", "openslide"])
def test_fluorescence_is_refused_by_every_reader(reader: str, slides_folder: Path) -> None:
    """With the setting that takes its colours as they are stored."""
    with pytest.raises(SlideError, match=r"fluorescence.*channels=\(0, 1, 2\)"):
        open_slide(slides_folder / "hamamatsu-test3-dapi-387.ndpi", reader)


def test_tables_of_tiles_that_contradict_each_other_never_reach_openslide(
    tmp_path: Path, picture: Pixels
) -> None:
    """More byte counts than offsets: a sentence and no accident."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        page.tags[325].overwrite([*page.databytecounts, 100])
    for reader_name in ("auto", "openslide"):
        with pytest.raises(SlideError, match=r"offsets and .* byte counts"):
            open_slide(path, reader_name)
