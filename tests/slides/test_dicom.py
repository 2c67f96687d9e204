"""The reader of DICOM slides on files of every kind that it takes, and on what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from chunkdl.errors import SlideError
from chunkdl.slides.address import SlideAddress
from chunkdl.slides.readers import dicom_frames
from chunkdl.slides.readers.codecs import ycbcr_to_rgb
from chunkdl.slides.readers.dicom import open_dicom, structure_of
from chunkdl.slides.readers.dicom_series import series_in
from chunkdl.slides.slide import Pixels, Slide
from tests.slides.dicom_files import (
    CODINGS,
    ORIGINAL,
    RESAMPLED,
    SERIES,
    Made,
    tiles_of,
    write_dicom,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]

LOSSLESS = [name for name in CODINGS if name not in ("jpeg", "jpeg rgb")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of each test is its own and empty."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "chunkdl" / "frames"


def whole(slide: Slide, level: int = 0) -> Pixels:
    """A level in one array."""
    size = slide.info.levels[level]
    out = np.full((size.height, size.width, 3), 137, np.uint8)
    slide.read_into(out, level, 0, 0)
    return out


def pixels_of(path: Path, image: int | None = None) -> Pixels:
    """Level 0 of a slide."""
    with closing(open_dicom(str(SlideAddress(str(path), image)))) as slide:
        return whole(slide)


def reduced(picture: Pixels, factor: int) -> Pixels:
    """Every so many pixels of a picture."""
    return np.ascontiguousarray(picture[::factor, ::factor])


def write_slide(folder: Path, picture: Pixels, made: Made = Made()) -> Path:  # noqa: B008
    """Write a slide of two levels, downsamples 1 and 4."""
    folder.mkdir(exist_ok=True)
    write_dicom(folder / "a.dcm", picture, made)
    coarse = replace(made, image_type=RESAMPLED, mm=made.mm * 4)
    write_dicom(folder / "b.dcm", reduced(picture, 4), coarse)
    return folder


# ---- Pixels


@pytest.mark.parametrize("table", ["none", "basic", "extended"])
@pytest.mark.parametrize("coding", LOSSLESS)
def test_every_region_of_a_lossless_slide_is_what_was_written(
    coding: str, table: str, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Both levels as a whole, and 30 random regions, whatever table the file has."""
    folder = write_slide(tmp_path / "slide", picture, Made(coding=coding, table=table))
    rng = np.random.default_rng(4)
    with closing(open_dicom(folder)) as slide:
        np.testing.assert_array_equal(whole(slide), picture)
        np.testing.assert_array_equal(whole(slide, 1), reduced(picture, 4))
        for _ in range(30):
            w, h = int(rng.integers(1, 500)), int(rng.integers(1, 500))
            x, y = int(rng.integers(0, 901 - w)), int(rng.integers(0, 701 - h))
            np.testing.assert_array_equal(
                read_region(slide, 0, x, y, w, h), picture[y : y + h, x : x + w]
            )


@pytest.mark.parametrize(
    ("coding", "stated"), [("jpeg", "YBR_FULL_422"), ("jpeg", "RGB"), ("jpeg rgb", "YBR_FULL_422")]
)
def test_the_colour_of_a_jpeg_frame_is_that_of_its_stream(
    coding: str, stated: str, tmp_path: Path, picture: Pixels
) -> None:
    """Whatever the header says of it: the pixels are those of the frames decoded alone."""
    stated_too = {"PhotometricInterpretation": stated}
    made = Made(coding=coding, frame=(450, 350), stated=stated_too)
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    frames = [
        imagecodecs.jpeg8_decode(CODINGS[coding][2](tile)) for tile in tiles_of(picture, (450, 350))
    ]
    expected = np.vstack([np.hstack(frames[:2]), np.hstack(frames[2:])])
    np.testing.assert_array_equal(pixels_of(path), expected)


def test_a_jpeg_frame_without_marks_has_the_colour_of_the_header(
    tmp_path: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of RGB that does not say so comes as RGB where the header says it."""
    syntax, photometric, encode = CODINGS["jpeg rgb"]

    def silent(tile: Pixels) -> bytes:
        data = bytes(encode(tile))
        assert data[2:4] == b"\xff\xee"
        # Without Adobe's mark, and components 1, 2, 3 in place of R, G, B.
        data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
        for letter, number in zip(b"RGB", (1, 2, 3), strict=True):
            data = data.replace(bytes([letter, 0x11]), bytes([number, 0x11]), 1)
            scan = data.index(b"\xff\xda")
            head = data[scan : scan + 14].replace(bytes([letter]), bytes([number]), 1)
            data = data[:scan] + head + data[scan + 14 :]
        return data

    monkeypatch.setitem(CODINGS, "jpeg rgb", (syntax, photometric, silent))
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="jpeg rgb"))
    difference = np.abs(pixels_of(path).astype(int) - picture)
    assert difference.mean() < 3


@pytest.mark.parametrize(("coding", "stated"), [("jpeg 2000", "RGB"), ("jpeg 2000 rgb", "RGB")])
def test_the_transform_of_a_jpeg_2000_frame_is_undone(
    coding: str, stated: str, tmp_path: Path, picture: Pixels
) -> None:
    """Whether the header names it or not."""
    made = Made(coding=coding, stated={"PhotometricInterpretation": stated})
    np.testing.assert_array_equal(
        pixels_of(write_dicom(tmp_path / "a.dcm", picture, made)), picture
    )


def test_ycbcr_in_a_jpeg_2000_frame_without_a_transform_becomes_rgb(
    tmp_path: Path, picture: Pixels
) -> None:
    """As files have it that were made from Aperio's."""
    made = Made(coding="jpeg 2000 rgb", stated={"PhotometricInterpretation": "YBR_FULL"})
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    np.testing.assert_array_equal(pixels_of(path), ycbcr_to_rgb(picture))


def test_planes_of_an_uncompressed_frame_are_put_together(tmp_path: Path, picture: Pixels) -> None:
    """PlanarConfiguration 1: red, green and blue of a frame follow each other."""
    planar = np.ascontiguousarray(picture.reshape(-1, 3).T).reshape(picture.shape)
    made = Made(frame=(900, 700), stated={"PlanarConfiguration": 1})
    path = write_dicom(tmp_path / "a.dcm", planar, made)
    np.testing.assert_array_equal(pixels_of(path), picture)


# ---- Frames


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("coding", ["uncompressed", "jpeg 2000"])
def test_frames_of_a_sparse_slide_lie_where_it_says(
    coding: str, undefined: bool, tmp_path: Path, picture: Pixels
) -> None:
    """In any order; the absent ones are background, counted, and not scanned."""
    order = [11, 3, 0, 7, 2, 8, 10, 1]
    made = Made(coding=coding, order=order, undefined_lengths=undefined)
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    expected = picture.copy()
    present = np.zeros((3, 4), np.bool_)
    present.flat[order] = True
    for row, column in np.argwhere(~present):
        expected[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256] = 255
    with closing(open_dicom(path)) as slide:
        np.testing.assert_array_equal(whole(slide), expected)
        scanned = slide.scanned()
        assert scanned is not None
        np.testing.assert_array_equal(scanned.cells, present)
        assert sum(slide.gaps.counts.values()) == 4


def test_a_frame_that_is_absent_from_a_coarse_level_is_made_from_the_finer_one(
    tmp_path: Path, picture: Pixels
) -> None:
    """And not white: the tissue is there."""
    write_dicom(tmp_path / "a.dcm", picture)
    coarse = Made(order=[1, 2, 3], image_type=RESAMPLED, mm=0.001)
    write_dicom(tmp_path / "b.dcm", reduced(picture, 2), coarse)
    means = picture.reshape(350, 2, 450, 2, 3).mean(axis=(1, 3))
    with closing(open_dicom(tmp_path)) as slide:
        made = whole(slide, 1)[:256, :256]
    assert np.abs(made - means[:256, :256]).max() <= 1


def test_an_item_without_bytes_is_an_absent_frame(
    tmp_path: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some scanners leave frames empty."""
    syntax, photometric, encode = CODINGS["rle"]
    first = tiles_of(picture, (256, 256))[0].tobytes()

    def encoded(tile: Pixels) -> bytes | bytearray:
        return b"" if tile.tobytes() == first else encode(tile)

    monkeypatch.setitem(CODINGS, "rle", (syntax, photometric, encoded))
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="rle"))
    expected = picture.copy()
    expected[:256, :256] = 255
    np.testing.assert_array_equal(pixels_of(path), expected)


@pytest.mark.parametrize("coding", ["uncompressed", "jpeg 2000"])
def test_parts_of_a_concatenation_are_one_level(
    coding: str, tmp_path: Path, picture: Pixels
) -> None:
    """Whatever their names, from each part, and cut inside a row of frames."""
    made = Made(coding=coding)
    for name, part in {"z": (1, 3, 0, 5), "m": (2, 3, 5, 6), "a": (3, 3, 6, 12)}.items():
        write_dicom(tmp_path / f"{name}.dcm", picture, replace(made, part=part))
    for path in (tmp_path, tmp_path / "m.dcm"):
        np.testing.assert_array_equal(pixels_of(path), picture)


def test_a_part_of_a_concatenation_that_begins_elsewhere_is_named(
    tmp_path: Path, picture: Pixels
) -> None:
    """Its frames would lie in the wrong places."""
    write_dicom(tmp_path / "1.dcm", picture, Made(part=(1, 2, 0, 5)))
    write_dicom(tmp_path / "2.dcm", picture, Made(part=(2, 2, 6, 12)))
    with pytest.raises(SlideError, match=r"2.dcm says that 6 frames are before it.*there are 5"):
        open_dicom(tmp_path)


@pytest.mark.parametrize(
    "stated", [{"PhotometricInterpretation": "RGB"}, {"Rows": 300}, {"TotalPixelMatrixRows": 400}]
)
def test_parts_of_a_concatenation_that_differ_are_refused(
    stated: dict[str, Any], tmp_path: Path, picture: Pixels
) -> None:
    """One decoder and one grid serve the level."""
    made = Made(coding="jpeg")
    write_dicom(tmp_path / "1.dcm", picture, replace(made, part=(1, 2, 0, 5)))
    write_dicom(tmp_path / "2.dcm", picture, replace(made, part=(2, 2, 5, 12), stated=stated))
    with pytest.raises(SlideError, match="parts of a concatenation differ"):
        open_dicom(tmp_path)


def test_the_last_parts_of_a_concatenation_are_missed_without_a_stated_total(
    tmp_path: Path, picture: Pixels
) -> None:
    """The frames do not cover the picture."""
    stated = {"InConcatenationTotalNumber": None}
    write_dicom(tmp_path / "1.dcm", picture, Made(part=(1, 2, 0, 5), stated=stated))
    with pytest.raises(SlideError, match="5 of 12 frames"):
        open_dicom(tmp_path)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_part_of_a_concatenation_is_named(
    missing: int, tmp_path: Path, picture: Pixels
) -> None:
    """Nothing is read of a level that is not whole."""
    for part in ((1, 3, 0, 5), (2, 3, 5, 6), (3, 3, 6, 12)):
        if part[0] != missing:
            write_dicom(tmp_path / f"{part[0]}.dcm", picture, Made(part=part))
    with pytest.raises(SlideError, match=f"part {missing} of 3 of a concatenation"):
        open_dicom(tmp_path)


@pytest.mark.parametrize("table", ["basic", "one frame"])
def test_fragments_of_a_frame_are_joined(table: str, tmp_path: Path, picture: Pixels) -> None:
    """Where a table, or the only frame, says which belong together."""
    made = Made(coding="jpeg 2000", table="basic", fragments=3)
    if table == "one frame":
        made = replace(made, table="none", frame=(900, 700))
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    np.testing.assert_array_equal(pixels_of(path), picture)


def test_fragments_that_no_table_assigns_are_refused(tmp_path: Path, picture: Pixels) -> None:
    """Nobody can say which items make a frame."""
    made = Made(coding="jpeg 2000", fragments=2)
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    with pytest.raises(SlideError, match=r"the reader 'dicom' does not accept it: .*more items"):
        open_dicom(path)


@pytest.mark.parametrize("table", ["basic", "extended"])
def test_a_table_that_points_elsewhere_gives_no_wrong_pixels(
    table: str, tmp_path: Path, picture: Pixels
) -> None:
    """Every place of it moved by two bytes: the items are walked."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="jpeg 2000", table=table))
    data = bytearray(path.read_bytes())
    size = 4 if table == "basic" else 8
    start = data.index(b"\xe0\x7f\x10\x00OB") + 20
    if table == "extended":
        start = data.index(b"\xe0\x7f\x01\x00OV") + 12
    for at in range(start, start + 12 * size, size):
        data[at : at + size] = (int.from_bytes(data[at : at + size], "little") + 2).to_bytes(
            size, "little"
        )
    path.write_bytes(data)
    np.testing.assert_array_equal(pixels_of(path), picture)


def test_one_wrong_place_in_a_table_is_an_error(tmp_path: Path, picture: Pixels) -> None:
    """A place that is not looked at when the file is opened is noticed when it is read."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="jpeg 2000", table="basic"))
    data = bytearray(path.read_bytes())
    at = data.index(b"\xe0\x7f\x10\x00OB") + 20 + 2 * 4
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 2).to_bytes(4, "little")
    path.write_bytes(data)
    with closing(open_dicom(path)) as slide, pytest.raises(SlideError, match="table of frames"):
        whole(slide)


# ---- The cache of frames


@pytest.fixture
def many_frames(tmp_path: Path, picture: Pixels) -> Path:
    """A slide of 700 frames without a table."""
    return write_dicom(tmp_path / "a.dcm", picture, Made(coding="rle", frame=(36, 25)))


def test_items_are_walked_once(
    many_frames: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second opening takes what the first has kept, and shows the same pixels."""
    np.testing.assert_array_equal(pixels_of(many_frames), picture)

    def again(*_: Any) -> Any:
        raise AssertionError("walked again")

    monkeypatch.setattr(dicom_frames, "_walked", again)
    np.testing.assert_array_equal(pixels_of(many_frames), picture)


def test_a_changed_file_is_walked_again(many_frames: Path, picture: Pixels, tmp_path: Path) -> None:
    """What was kept of the old file is not used for the new one."""
    pixels_of(many_frames)
    other = np.ascontiguousarray(picture[::-1])
    write_dicom(many_frames, other, Made(coding="jpeg-ls", frame=(36, 25)))
    np.testing.assert_array_equal(pixels_of(many_frames), other)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_costs_time_and_nothing_else(
    damage: str, many_frames: Path, picture: Pixels, own_cache: Path
) -> None:
    """It is made anew, and is sound afterwards."""
    pixels_of(many_frames)
    (kept,) = own_cache.iterdir()
    sound = kept.read_bytes()
    broken = {"cut": sound[:-9], "flip": sound[:-9] + b"?" + sound[-8:], "empty": b""}[damage]
    kept.write_bytes(broken)
    np.testing.assert_array_equal(pixels_of(many_frames), picture)
    assert kept.read_bytes() == sound
    assert [kept] == list(own_cache.iterdir())


def test_a_cache_that_cannot_be_written_fails_nothing(
    many_frames: Path, picture: Pixels, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says so."""
    own_cache.parent.parent.joinpath("chunkdl").write_text("a file where the folder should be")
    np.testing.assert_array_equal(pixels_of(many_frames), picture)
    assert "cannot be kept" in caplog.text


# ---- Which pictures are levels


def test_roles_come_from_the_image_type(tmp_path: Path, picture: Pixels) -> None:
    """A thumbnail, label or macro is not a level, even with the aspect and a size of one."""
    folder = write_slide(tmp_path / "slide", picture)
    kinds = {"LABEL": "label", "OVERVIEW": "macro", "LOCALIZER": "macro", "THUMBNAIL": "thumbnail"}
    for kind in kinds:
        made = Made(image_type=("ORIGINAL", "PRIMARY", kind, "NONE"), mm=0.001)
        write_dicom(folder / f"c-{kind}.dcm", reduced(picture, 2), made)
    structure = structure_of(folder)
    roles = {page.name: page.role for page in structure.pages}
    assert roles == {
        "a.dcm": "level",
        "b.dcm": "level",
        **{f"c-{kind}.dcm": role for kind, role in kinds.items()},
    }
    (image,) = structure.images
    assert [level.width for level in image.levels] == [900, 225]


def test_each_series_of_a_folder_is_a_slide(tmp_path: Path, picture: Pixels) -> None:
    """A file names its own; of the folder one has to be chosen."""
    other = np.ascontiguousarray(picture[::-1])
    write_dicom(tmp_path / "b1.dcm", picture)
    write_dicom(tmp_path / "a1.dcm", other, Made(series=SERIES + ".2"))
    write_dicom(tmp_path / "a2.dcm", reduced(picture, 4), Made(image_type=RESAMPLED, mm=0.002))
    (tmp_path / "notes.txt").write_text("not DICOM")
    assert series_in(tmp_path) == {
        SERIES + ".2": (str(tmp_path / "a1.dcm"),),
        SERIES: (str(tmp_path / "a2.dcm"), str(tmp_path / "b1.dcm")),
    }
    with pytest.raises(SlideError, match=r"2 slides, and none was chosen.*#image=0"):
        open_dicom(tmp_path)
    np.testing.assert_array_equal(pixels_of(tmp_path, 0), other)
    np.testing.assert_array_equal(pixels_of(tmp_path, 1), picture)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a1.dcm"), other)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a2.dcm"), picture)
    with closing(open_dicom(f"{tmp_path}#image=1")) as slide:
        assert slide.info.path == f"{tmp_path}#image=1"


def test_a_pyramid_that_is_resampled_as_a_whole_is_left_out(
    tmp_path: Path, picture: Pixels
) -> None:
    """The slide is the one with the original picture; the other is named with the reason."""
    first = {"PyramidUID": SERIES + ".5", "FrameOfReferenceUID": SERIES + ".9"}
    second = {"PyramidUID": SERIES + ".6", "FrameOfReferenceUID": SERIES + ".9"}
    folder = write_slide(tmp_path / "slide", picture, Made(stated=first))
    for name, factor in {"0.dcm": 2, "z.dcm": 4}.items():
        made = Made(image_type=RESAMPLED, mm=0.0005 * factor, stated=second)
        write_dicom(folder / name, reduced(picture, factor)[::-1], made)
    np.testing.assert_array_equal(pixels_of(folder), picture)
    structure = structure_of(folder)
    assert len(structure.images) == 1
    whys = {page.name: page.why for page in structure.pages if page.role == "unknown"}
    assert whys.keys() == {"0.dcm", "z.dcm"}
    assert all("another pyramid" in why for why in whys.values())


@pytest.mark.parametrize("element", ["PyramidUID", "FrameOfReferenceUID", "nothing"])
def test_two_original_pictures_are_two_slides(
    element: str, tmp_path: Path, picture: Pixels
) -> None:
    """Focal planes, channels or scans of one size: somebody has to choose."""
    folder = tmp_path / "slide"
    for number, prefix in enumerate("xy"):
        stated = {} if element == "nothing" else {element: f"{SERIES}.{number + 5}"}
        write_slide(tmp_path / prefix, picture[:: 1 - 2 * number], Made(stated=stated))
        folder.mkdir(exist_ok=True)
        for file in (tmp_path / prefix).iterdir():
            shutil.copy(file, folder / f"{prefix}-{file.name}")
    with pytest.raises(SlideError, match="2 slides, and none was chosen"):
        open_dicom(folder)
    np.testing.assert_array_equal(pixels_of(folder, 0), picture)
    np.testing.assert_array_equal(pixels_of(folder, 1), picture[::-1])
    # Nothing says whose the coarse pictures are: none is better than the wrong one.
    levels = [len(image.levels) for image in structure_of(folder).images]
    assert levels == ([1, 1] if element == "nothing" else [2, 2])


def test_uids_that_say_nothing_keep_no_level_away(tmp_path: Path, picture: Pixels) -> None:
    """A frame of reference for each file, a PyramidUID in some files only: both occur."""
    write_dicom(tmp_path / "0.dcm", picture, Made(stated={"FrameOfReferenceUID": SERIES + ".90"}))
    for factor in (2, 4, 8):
        stated = {"FrameOfReferenceUID": f"{SERIES}.9{factor}", "PyramidUID": SERIES + ".5"}
        made = Made(image_type=RESAMPLED, mm=0.0005 * factor, stated=stated)
        write_dicom(tmp_path / f"{factor}.dcm", reduced(picture, factor), made)
    (image,) = structure_of(tmp_path).images
    assert [level.width for level in image.levels] == [900, 450, 225, 113]


def test_a_coarse_picture_in_another_frame_of_reference_is_no_level(
    tmp_path: Path, picture: Pixels
) -> None:
    """Where the others of the series share one."""
    folder = write_slide(
        tmp_path / "slide", picture, Made(stated={"FrameOfReferenceUID": SERIES + ".8"})
    )
    elsewhere = {"FrameOfReferenceUID": SERIES + ".9"}
    made = Made(image_type=RESAMPLED, mm=0.001, stated=elsewhere)
    write_dicom(folder / "c.dcm", reduced(picture, 2), made)
    (image,) = structure_of(folder).images
    assert [level.width for level in image.levels] == [900, 225]


def test_a_file_that_is_a_tiff_as_well_is_read_as_dicom(tmp_path: Path, picture: Pixels) -> None:
    """Public archives write the head of a TIFF into the preamble; it knows one level only."""
    folder = write_slide(tmp_path / "slide", picture)
    for file in folder.iterdir():
        file.write_bytes(b"II*\0\x08\0\0\0" + file.read_bytes()[8:])
    with closing(open_dicom(folder)) as slide:
        assert len(slide.info.levels) == 2
        np.testing.assert_array_equal(whole(slide), picture)


def test_files_that_change_their_series_are_noticed(tmp_path: Path, picture: Pixels) -> None:
    """What is remembered of a folder ends when a file in it changes."""
    write_slide(tmp_path / "slide", picture)
    assert len(structure_of(tmp_path / "slide").images) == 1
    write_dicom(tmp_path / "slide" / "b.dcm", picture, Made(series=SERIES + ".22"))
    assert len(structure_of(tmp_path / "slide").images) == 2


def test_a_copy_of_a_file_is_no_second_level(tmp_path: Path, picture: Pixels) -> None:
    """The same SOPInstanceUID twice in a folder."""
    folder = write_slide(tmp_path / "slide", picture)
    shutil.copy(folder / "a.dcm", folder / "a (1).dcm")
    structure = structure_of(folder)
    assert [len(image.levels) for image in structure.images] == [2]
    assert [page.why for page in structure.pages if page.role == "unknown"] == [
        "a copy of a (1).dcm: both have one SOPInstanceUID"
    ]


@pytest.mark.parametrize(
    ("picked", "changes", "why"),
    [
        ((slice(0, 300, 2), slice(0, 900, 2)), {}, "another aspect"),
        ((slice(0, 350), slice(0, 450)), {"mm": 0.0005}, "pixel spacing"),
        (
            (slice(None, None, 2), slice(None, None, 2)),
            {"stated": {"ImageOrientationSlide": [1, 0, 0, 0, 1, 0]}},
            "another orientation",
        ),
    ],
)
def test_a_picture_that_does_not_show_what_level_0_shows_is_no_level(
    picked: tuple[slice, slice], changes: dict[str, Any], why: str, tmp_path: Path, picture: Pixels
) -> None:
    """Another aspect, another area, another orientation: left out, with the reason."""
    upright = {"ImageOrientationSlide": [0, -1, 0, -1, 0, 0]}
    folder = write_slide(tmp_path / "slide", picture, Made(stated=upright))
    made = replace(Made(image_type=RESAMPLED, mm=0.001), **changes)
    write_dicom(folder / "c.dcm", picture[picked], made)
    structure = structure_of(folder)
    (page,) = (page for page in structure.pages if page.name == "c.dcm")
    assert page.role == "unknown"
    assert why in page.why
    assert [len(image.levels) for image in structure.images] == [2]


def test_a_level_that_is_padded_to_whole_frames_is_cut(tmp_path: Path, picture: Pixels) -> None:
    """Its downsample is that of its pixel spacing, not that of the padded size."""
    write_dicom(tmp_path / "a.dcm", picture)
    padded = np.full((256, 256, 3), 9, np.uint8)
    padded[:175, :225] = reduced(picture, 4)
    made = Made(image_type=RESAMPLED, mm=0.002)
    write_dicom(tmp_path / "b.dcm", padded, made)
    with closing(open_dicom(tmp_path)) as slide:
        assert [round(level.downsample, 6) for level in slide.info.levels] == [1, 4]
        np.testing.assert_array_equal(whole(slide, 1), reduced(picture, 4))
        assert any("padding" in note for note in slide.info.notes)


def test_a_pixel_spacing_of_few_digits_cuts_no_level(tmp_path: Path) -> None:
    """A level that ends with its last frame, and whose spacing is written a little too large."""
    picture = np.zeros((3072, 4096, 3), np.uint8)
    write_dicom(tmp_path / "a.dcm", picture, Made(coding="rle", frame=(256, 256)))
    made = Made(coding="rle", frame=(256, 256), image_type=RESAMPLED, mm=0.001004)
    write_dicom(tmp_path / "b.dcm", reduced(picture, 2), made)
    (image,) = structure_of(tmp_path).images
    assert [(level.width, level.downsample) for level in image.levels] == [(4096, 1), (2048, 2)]


def test_a_slide_whose_original_is_not_there_says_so(tmp_path: Path, picture: Pixels) -> None:
    """A coarse picture alone is not silently taken for the scan."""
    made = Made(image_type=RESAMPLED)
    with closing(open_dicom(write_dicom(tmp_path / "a.dcm", picture, made))) as slide:
        assert any("resampled" in note for note in slide.info.notes)


def test_a_file_of_the_folder_that_cannot_be_read_is_named(tmp_path: Path, picture: Pixels) -> None:
    """It may be the finest level of this very slide."""
    folder = write_slide(tmp_path / "slide", picture)
    (folder / "empty.dcm").touch()
    with closing(open_dicom(folder)) as slide:
        assert any("empty.dcm" in note for note in slide.info.notes)


# ---- Facts


def test_microns_per_pixel_are_read_as_column_and_row(tmp_path: Path, picture: Pixels) -> None:
    """PixelSpacing has the distance of the rows first; ImagedVolumeWidth stands in for it."""
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0006, 0.0005]
    shared.PixelMeasuresSequence = Items([measures])
    stated = {"SharedFunctionalGroupsSequence": Items([shared])}
    path = write_dicom(tmp_path / "a.dcm", picture, Made(stated=stated))
    with closing(open_dicom(path)) as slide:
        assert slide.info.mpp == pytest.approx((0.5, 0.6))
        assert slide.info.mpp_source == "the PixelSpacing of a.dcm"
        assert any("not square" in note for note in slide.info.notes)
    volume = {
        "SharedFunctionalGroupsSequence": None,
        "ImagedVolumeWidth": 0.45,
        "ImagedVolumeHeight": 0.35,
    }
    path = write_dicom(tmp_path / "a.dcm", picture, Made(stated=volume))
    with closing(open_dicom(path)) as slide:
        assert slide.info.mpp == pytest.approx((0.5, 0.5))
        assert "ImagedVolumeWidth" in slide.info.mpp_source


@pytest.mark.parametrize("mm", [0, -1, 1000])
def test_impossible_microns_per_pixel_are_unknown(
    mm: float, tmp_path: Path, picture: Pixels
) -> None:
    """They are not guessed."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(mm=mm))
    with closing(open_dicom(path)) as slide:
        assert slide.info.mpp is None
        assert slide.info.mpp_source == ""


def test_the_objective_and_the_colour_profile_are_those_of_the_optical_path(
    tmp_path: Path, picture: Pixels
) -> None:
    """Both are in the first item of the OpticalPathSequence."""
    optics = Dataset()
    optics.ObjectiveLensPower, optics.ICCProfile = 40, b"a profile "
    path = write_dicom(
        tmp_path / "a.dcm", picture, Made(stated={"OpticalPathSequence": Items([optics])})
    )
    with closing(open_dicom(path)) as slide:
        assert slide.info.magnification == 40
        assert slide.icc_profile == b"a profile "


# ---- Refusals


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}, "MONOCHROME2"),
        ({"BitsAllocated": 16, "BitsStored": 12}, "12 bits"),
        ({"TotalPixelMatrixFocalPlanes": 3}, "3 focal planes"),
        ({"NumberOfOpticalPaths": 2}, "2 optical paths"),
        ({"OpticalPathSequence": Items([Dataset(), Dataset()])}, "2 optical paths"),
        ({"PhotometricInterpretation": "YBR_FULL_422"}, "YBR_FULL_422"),
        ({"DimensionOrganizationType": "3D"}, "3D"),
        ({"DimensionOrganizationType": None}, "where each of its frames is"),
        ({"TotalPixelMatrixRows": 400}, "focal planes, optical paths"),
    ],
)
def test_what_is_not_read_is_refused_with_the_reason(
    stated: dict[str, Any], why: str, tmp_path: Path, picture: Pixels
) -> None:
    """Another reader may take it."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(stated=stated))
    with pytest.raises(SlideError, match=f"the reader 'dicom' does not accept it: .*{why}"):
        open_dicom(path)


@pytest.mark.parametrize("number", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.3"])
def test_a_transfer_syntax_that_is_not_read_is_named(
    number: str, tmp_path: Path, picture: Pixels
) -> None:
    """By its number, and by its name where it is known."""
    path = write_dicom(tmp_path / "a.dcm", picture)
    old, new = (uid.encode() for uid in ("1.2.840.10008.1.2.1", number))
    data = path.read_bytes()
    at = data.index(b"\x02\x00\x10\x00UI")
    kept = data[at + 8 + len(old) + len(old) % 2 :]
    new += bytes(len(new) % 2)
    path.write_bytes(data[: at + 6] + len(new).to_bytes(2, "little") + new + kept)
    with pytest.raises(SlideError, match=f"the reader 'dicom' does not accept it: .*{number}"):
        open_dicom(path)


@pytest.mark.parametrize("content", [b"", b"no DICOM at all" * 40])
def test_what_is_no_dicom_file_is_left_to_others(content: bytes, tmp_path: Path) -> None:
    """So is a folder without one."""
    (tmp_path / "a.dcm").write_bytes(content)
    for path in (tmp_path, tmp_path / "a.dcm"):
        with pytest.raises(SlideError, match="the reader 'dicom' does not accept it"):
            open_dicom(path)
    with pytest.raises(SlideError, match="no such file"):
        open_dicom(tmp_path / "b.dcm")


def test_frames_that_are_not_on_the_grid_are_refused(tmp_path: Path, picture: Pixels) -> None:
    """The position of the first is named."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(order=[0, 1]))
    data = path.read_bytes()
    at = data.index(b"\x48\x00\x1e\x02SL\x04\x00" + (257).to_bytes(4, "little")) + 8
    path.write_bytes(data[:at] + (260).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(SlideError, match=r"a frame at \(259, 0\) is not on the grid"):
        open_dicom(path)


def test_two_frames_of_one_place_are_refused(tmp_path: Path, picture: Pixels) -> None:
    """They may be focal planes; no one of them is simply the slide."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(order=[0, 1, 1]))
    with pytest.raises(SlideError, match="several frames show one place"):
        open_dicom(path)


# ---- Damage


@pytest.mark.parametrize("table", ["none", "basic", "extended"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_a_file_that_is_cut_short_is_an_error(
    share: float, table: str, tmp_path: Path, picture: Pixels
) -> None:
    """When it is opened, wherever the cut is."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="jpeg 2000", table=table))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SlideError):
        open_dicom(path)


def test_an_uncompressed_file_that_is_cut_short_is_an_error(
    tmp_path: Path, picture: Pixels
) -> None:
    """Though its header is whole."""
    path = write_dicom(tmp_path / "a.dcm", picture)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(SlideError, match="cut short"):
        open_dicom(path)


@pytest.mark.parametrize(
    "stated",
    [
        {"NumberOfFrames": 2**31 - 1},
        {"NumberOfFrames": -3},
        {"NumberOfFrames": 0},
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 0},
        {"Rows": 1, "Columns": 1, "TotalPixelMatrixColumns": 2**32 - 1},
        {"TotalPixelMatrixRows": 2**32 - 1, "TotalPixelMatrixColumns": 2**32 - 1},
        {"TotalPixelMatrixRows": 0},
        {"ExtendedOffsetTable": b"\xff" * 96, "ExtendedOffsetTableLengths": b"\xff" * 96},
        {"ExtendedOffsetTable": bytes(8), "ExtendedOffsetTableLengths": bytes(8)},
        {"ExtendedOffsetTable": bytes(96), "ExtendedOffsetTableLengths": b"\0\0\0\0\1\0\0\0" * 12},
    ],
)
def test_numbers_that_cannot_be_take_no_memory(
    stated: dict[str, Any], tmp_path: Path, picture: Pixels, address_space: None
) -> None:
    """A hostile header is an error, or harmless; it never allocates what it claims."""
    made = Made(coding="jpeg 2000", order=range(12) if "Rows" in stated else None, stated=stated)
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    try:
        found = pixels_of(path)
    except SlideError:
        return
    np.testing.assert_array_equal(found, picture)


@pytest.fixture
def address_space() -> Any:
    """At most 1 GiB more memory than this process has."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_flipped_bytes_in_the_header_give_an_error_or_the_slide(
    tmp_path: Path, picture: Pixels, address_space: None
) -> None:
    """400 damaged headers: a SlideError or an array of the stated size, never another error."""
    made = Made(coding="rle", frame=(450, 350), order=[3, 0, 1, 2], undefined_lengths=True)
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    sound = path.read_bytes()
    end = sound.index(b"\xe0\x7f\x10\x00OB") + 40
    rng = np.random.default_rng(8)
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(128, end))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            slide = open_dicom(path)
        except SlideError:
            continue
        with closing(slide):
            level = slide.info.levels[0]
            out = np.empty((min(level.height, 300), min(level.width, 300), 3), np.uint8)
            try:
                slide.read_into(out, 0, 0, 0)
            except SlideError:
                continue


def test_a_frame_of_another_kind_than_the_header_says_is_refused_at_once(
    tmp_path: Path, picture: Pixels
) -> None:
    """YBR_ICT without the transform in the stream would be shown in false colours."""
    made = Made(coding="jpeg 2000 rgb", stated={"PhotometricInterpretation": "YBR_ICT"})
    path = write_dicom(tmp_path / "a.dcm", picture, made)
    with pytest.raises(
        SlideError, match=r"the reader 'dicom' does not accept it: .*colour transform"
    ):
        open_dicom(path)


def test_a_frame_of_another_size_is_an_error(tmp_path: Path, picture: Pixels) -> None:
    """The decoder never writes beyond the tile."""
    path = write_dicom(tmp_path / "a.dcm", picture, Made(coding="jpeg"))
    data = path.read_bytes()
    at = data.rindex(b"\xff\xc0\x00\x11\x08") + 5
    path.write_bytes(data[:at] + b"\x02\x00\x02\x00" + data[at + 4 :])
    with closing(open_dicom(path)) as slide, pytest.raises(SlideError, match="cannot read"):
        whole(slide)


def test_levels_are_original_or_resampled(tmp_path: Path, picture: Pixels) -> None:
    """Levels that all say that they are original fit together as well."""
    folder = tmp_path / "slide"
    folder.mkdir()
    write_dicom(folder / "a.dcm", picture)
    write_dicom(folder / "b.dcm", reduced(picture, 4), Made(image_type=ORIGINAL, mm=0.002))
    with closing(open_dicom(folder)) as slide:
        assert len(slide.info.levels) == 2
