"""Microns per pixel and downsamples: from the best source, cross-checked, or said to be unknown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.slides.microns import Claim, believed, microns_of_unit, number_in
from chunkdl.slides.readers.registry import open_slide, read_structure
from chunkdl.slides.slide import Pixels, Slide, SlideInfo
from tests.slides.tiff_pages import (
    aperio,
    averaged,
    ome,
    ome_image,
    padded,
    page,
    reduced,
    size_of,
    sizes,
    write_tiff,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]
HALF = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
"""Tags that say 0.5 microns per pixel."""


def info_of(path: Path) -> SlideInfo:
    with closing(open_slide(path)) as slide:
        return slide.info


def tags(value: float, unit: str) -> dict[str, Any]:
    return {"resolution": (value, value), "resolutionunit": unit}


# ---- What is believed


@pytest.mark.parametrize(
    ("value", "unit"),
    [(72, "INCH"), (96, "INCH"), (300, "INCH"), (1, "INCH"), (1, "CENTIMETER"), (10, "CENTIMETER"),
     (1, "NONE"), (20_000, "NONE"), (10_000_000, "CENTIMETER")],
)  # fmt: skip
def test_the_default_of_a_writer_is_no_size_of_a_pixel(
    value: float, unit: str, tmp_path: Path, picture: Pixels
) -> None:
    """It is unknown, and where a length was stated the note says what to do."""
    info = info_of(write_tiff(tmp_path / "a.tif", page(picture, **tags(value, unit))))
    assert info.mpp is None
    assert info.mpp_source == ""
    if unit != "NONE":
        assert "give mpp for this slide in the dataset" in info.notes[0]
        assert "the resolution tags say" in info.notes[0]


@pytest.mark.parametrize(("value", "unit"), [(72, "INCH"), (1, "CENTIMETER"), (96, "INCH")])
def test_the_text_of_a_vendor_goes_before_the_default_of_a_writer(
    value: float, unit: str, tmp_path: Path, picture: Pixels
) -> None:
    """Aperio and OME; the default is not worth a word."""
    size = size_of(picture)
    svs = write_tiff(
        tmp_path / "a.svs",
        page(picture, description=aperio(size, fields="|MPP = 0.5"), **tags(value, unit)),
    )
    xml = ome(ome_image(0, "", size, 0.5))
    tif = write_tiff(tmp_path / "a.ome.tif", page(picture, description=xml, **tags(value, unit)))
    for path, source in ((svs, "the Aperio description"), (tif, "the OME-XML")):
        info = info_of(path)
        assert (info.mpp, info.mpp_source, info.notes) == ((0.5, 0.5), source, ())


def test_tags_are_used_where_the_text_says_nothing_that_can_be(
    tmp_path: Path, picture: Pixels
) -> None:
    """Zero, nonsense, and a thousand microns."""
    for number, value in enumerate(("0", "nan", "n/a", "1000", "-0.5", "")):
        text = aperio(size_of(picture), fields=f"|MPP = {value}")
        info = info_of(
            write_tiff(tmp_path / f"{number}.svs", page(picture, description=text, **HALF))
        )
        assert info.mpp == (0.5, 0.5)
        assert info.mpp_source == "the resolution tags"


def test_sources_that_contradict_each_other_are_told(tmp_path: Path, picture: Pixels) -> None:
    """The text is used, both numbers are in the note, and how to use another."""
    text = aperio(size_of(picture), fields="|MPP = 0.25")
    info = info_of(write_tiff(tmp_path / "a.svs", page(picture, description=text, **HALF)))
    assert info.mpp == (0.25, 0.25)
    (note,) = info.notes
    for part in ("0.25", "0.5", "the Aperio description", "the resolution tags", "give mpp"):
        assert part in note


@pytest.mark.parametrize(
    ("mpp", "power", "warned"),
    [(0.25, 40, False), (0.25, 20, True), (0.5, 20, False), (0.5, 40, True), (0.33, 20, False),
     (0.2, 40, False), (0.46, 20, False), (4.6, 20, True), (0.79, 20, False), (0.81, 20, True),
     (0.313, 20, False), (0.312, 20, True)],
)  # fmt: skip
def test_a_size_that_contradicts_the_objective_by_more_than_1_6_is_warned_about(
    mpp: float, power: int, warned: bool, tmp_path: Path, picture: Pixels
) -> None:
    """0.25 at 40x and 0.5 at 20x are right; the note has the remedy."""
    text = aperio(size_of(picture), fields=f"|AppMag = {power}|MPP = {mpp}")
    info = info_of(write_tiff(tmp_path / "a.svs", page(picture, description=text)))
    assert info.mpp == (mpp, mpp)
    assert info.magnification == power
    assert bool(info.notes) == warned
    if warned:
        assert f"{power}x" in info.notes[0]
        assert "give mpp for this slide in the dataset" in info.notes[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.25", 0.25), ("0,2501", 0.2501), (" 2.5e-1 ", 0.25), ("1.234,5", None), ("", None),
     ("0", None), ("-1", None), ("inf", None), ("nan", None), ("0.25 um", None)],
)  # fmt: skip
def test_numbers_may_have_a_decimal_comma(text: str, value: float | None) -> None:
    """What is not a positive number is none."""
    assert number_in(text) == value


def test_an_aperio_text_may_have_decimal_commas(tmp_path: Path, picture: Pixels) -> None:
    """In the size of a pixel and in the power."""
    text = aperio(size_of(picture), fields="|AppMag = 20,0|MPP = 0,4990")
    info = info_of(write_tiff(tmp_path / "a.svs", page(picture, description=text)))
    assert (info.mpp, info.magnification) == ((0.499, 0.499), 20)


def test_pixels_that_are_not_square_are_told(tmp_path: Path, picture: Pixels) -> None:
    """Both sizes are kept as (x, y), by tags and by XML."""
    wide = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    xml = ome_image(0, "", size_of(picture), 0.5).replace(
        'PhysicalSizeY="0.5"', 'PhysicalSizeY="0.25"'
    )
    for path in (
        write_tiff(tmp_path / "a.tif", page(picture, **wide)),
        write_tiff(tmp_path / "a.ome.tif", page(picture, description=ome(xml))),
    ):
        info = info_of(path)
        assert info.mpp == pytest.approx((0.5, 0.25))
        assert any("not square: 0.5 x 0.25" in note for note in info.notes)


def test_the_first_possible_claim_is_believed_and_none_is_invented() -> None:
    """Whatever the order; nothing said is nothing told."""
    bad, good = Claim(1000, 1000, "the tags"), Claim(0.5, 0.5, "the XML")
    for claims in ([bad, good], [good, bad], [good]):
        microns = believed(claims, None)
        assert (microns.mpp, microns.source, microns.notes) == ((0.5, 0.5), "the XML", ())
    assert believed([], 20).notes == ()
    assert believed([bad], 20).mpp is None
    for edge, known in ((0.05, True), (0.049, False), (50.0, True), (50.1, False)):
        assert (believed([Claim(edge, edge, "it")], None).mpp is not None) == known
        assert (believed([Claim(0.5, edge, "it")], None).mpp is not None) == known


# ---- Units


@pytest.mark.parametrize(
    ("unit", "microns"),
    [("µm", 1), ("μm", 1), ("um", 1), ("UM", 1), ("micron", 1), ("Microns", 1), (" µm ", 1),
     ("micrometers", 1), ("micrometres", 1), ("Âµm", 1), ("Î¼m", 1), ("\ufffdm", 1), ("nm", 1e-3),
     ("nanometers", 1e-3), ("pm", 1e-6), ("Å", 1e-4), ("mm", 1e3), ("millimetres", 1e3),
     ("cm", 1e4), ("dm", 1e5), ("m", 1e6), ("inch", 25_400), ("inches", 25_400), ("in", 25_400),
     ("thou", 25.4), ("pt", 25_400 / 72), ("pixel", None), ("reference frame", None), ("", None)],
)  # fmt: skip
def test_units_are_read_in_any_spelling(unit: str, microns: float | None) -> None:
    """A unit that is not a length is none."""
    assert microns_of_unit(unit) == (None if microns is None else pytest.approx(microns))


@pytest.mark.parametrize(
    ("unit", "value"),
    [("µm", "0.5"), ("&#181;m", "0.5"), ("&#xB5;m", "0.5"), ("\u03bcm", "0.5"), ("", "0.5"),
     ("nm", "500"), ("mm", "0.0005"), ("cm", "5E-5"), ("m", "5e-7"), ("in", "0.00001968503937"),
     ("Å", "5000"), ("micron", "0,5")],
)  # fmt: skip
def test_an_ome_tiff_may_name_its_unit_as_it_likes(
    unit: str, value: str, tmp_path: Path, picture: Pixels
) -> None:
    """As a character, as a reference to one, as another unit, or not at all, which is microns."""
    xml = ome(ome_image(0, "", size_of(picture), value, unit=unit))
    info = info_of(write_tiff(tmp_path / "a.ome.tif", page(picture, description=xml)))
    assert info.mpp == pytest.approx((0.5, 0.5))
    assert info.mpp_source == "the OME-XML"


def test_a_micro_sign_of_latin_1_is_read(tmp_path: Path, picture: Pixels) -> None:
    """The XML says UTF-8 and one byte of it is not."""
    xml = ome(ome_image(0, "", size_of(picture), 0.5, unit="µm")).decode().encode("latin-1")
    info = info_of(write_tiff(tmp_path / "a.ome.tif", page(picture, description=xml)))
    assert info.mpp == (0.5, 0.5)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong"])
def test_a_unit_that_is_no_length_leaves_it_to_the_tags(
    unit: str, tmp_path: Path, picture: Pixels
) -> None:
    """And without them the size is unknown."""
    xml = ome(ome_image(0, "", size_of(picture), 1, unit=unit))
    with_tags = write_tiff(tmp_path / "a.ome.tif", page(picture, description=xml, **HALF))
    assert info_of(with_tags).mpp == (0.5, 0.5)
    without = write_tiff(tmp_path / "b.ome.tif", page(picture, description=xml))
    assert info_of(without).mpp is None


# ---- Downsamples


def where_it_lies(
    path: Path, truth: dict[int, Pixels], read_region: Read
) -> list[tuple[float, tuple[int, int]]]:
    """Downsample and size of each level, after a check that every level has its pixels."""
    found = []
    with closing(open_slide(path)) as slide:
        for index, level in enumerate(slide.info.levels):
            expected = truth[round(level.downsample)]
            got = read_region(slide, index, 0, 0, level.width, level.height)
            np.testing.assert_array_equal(got, expected[: level.height, : level.width])
            found.append((level.downsample, (level.width, level.height)))
    return found


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_levels_that_are_filled_up_to_whole_tiles_have_their_true_downsample(
    tagged: bool, order: tuple[int, ...], tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """By the resolution of each page, or because one power of two alone fits."""
    truth = {factor: averaged(picture, factor) for factor in (1, 2, 4)}
    pages = [
        page(
            padded(pixels) if factor > 1 else pixels,
            subfiletype=int(factor > 1),
            **(tags(20_000 / factor, "CENTIMETER") if tagged else {}),
        )
        for factor, pixels in truth.items()
    ]
    path = write_tiff(tmp_path / "padded.tif", *(pages[index] for index in order))
    assert where_it_lies(path, truth, read_region) == [
        (1.0, (900, 700)), (2.0, (450, 350)), (4.0, (225, 175)),
    ]  # fmt: skip


def test_a_filled_level_whose_ratio_is_a_whole_number_is_not_taken_at_its_word(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """448x448 is 56x56 reduced 8 times, filled up to 64x64: 7 to 1, which is wrong."""
    base = np.ascontiguousarray(picture[:448, :448])
    small = averaged(base, 8)
    for tagged in (True, False):
        more = [tags(20_000 / factor, "CENTIMETER") if tagged else {} for factor in (1, 8)]
        path = write_tiff(
            tmp_path / f"{tagged}.tif",
            page(base, **more[0]),
            page(padded(small), subfiletype=1, **more[1]),
        )
        found = where_it_lies(path, {1: base, 8: small}, read_region)
        expected = [(1.0, (448, 448)), (8.0, (56, 56))]
        # Without tags nothing says which of both it is: no level, rather than a wrong one.
        assert found == (expected if tagged else expected[:1])


def test_levels_of_any_ratio_have_it_where_their_tags_agree(
    tmp_path: Path, picture: Pixels
) -> None:
    """Three to one, and two and a half."""
    third = averaged(picture, 3)
    odd = np.ascontiguousarray(picture[:280, :360])
    path = write_tiff(
        tmp_path / "a.tif",
        page(picture, **HALF),
        page(third, subfiletype=1, **tags(20_000 / 3, "CENTIMETER")),
        page(odd, subfiletype=1, **tags(8_000, "CENTIMETER")),
    )
    assert sizes(path) == [(900, 700), (360, 280), (300, 233)]
    image = read_structure(path).images[0]
    assert [level.downsample for level in image.levels] == pytest.approx([1, 2.5, 3], rel=0.01)


@pytest.mark.parametrize("level_tags", [tags(72, "INCH"), tags(10, "CENTIMETER"), HALF, {}])
def test_a_default_in_the_tags_of_a_level_moves_nothing(
    level_tags: dict[str, Any], tmp_path: Path, picture: Pixels
) -> None:
    """Sizes say 2, 4 and 8 to 1; the last is one tile, in which anything coarser would fit."""
    base = np.ascontiguousarray(picture[:512, :512])
    levels = [reduced(base, factor, **level_tags) for factor in (2, 4, 8)]
    path = write_tiff(tmp_path / "a.tif", page(base, **HALF), *levels)
    downsamples = [level.downsample for level in read_structure(path).images[0].levels]
    assert downsamples == [1, 2, 4, 8]


def test_one_downsample_holds_for_both_axes(tmp_path: Path, picture: Pixels) -> None:
    """A page that is reduced 2 to 1 across and 2.2 to 1 down shows something else."""
    path = write_tiff(tmp_path / "a.tif", page(picture), page(picture[:318, :450], subfiletype=1))
    assert sizes(path) == [(900, 700)]
    odd = np.ascontiguousarray(picture[:699, :899])
    path = write_tiff(tmp_path / "b.tif", page(odd), *(reduced(odd, factor) for factor in (2, 4)))
    levels = read_structure(path).images[0].levels
    assert [(level.width, level.height) for level in levels] == [(899, 699), (450, 350), (225, 175)]
    assert [level.downsample for level in levels] == pytest.approx([1, 2, 4], abs=0.01)
