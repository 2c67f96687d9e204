"""Which page is the slide: by what the pages say and by their shapes, never by order or tiling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from chunkdl.errors import SlideError
from chunkdl.slides.readers.registry import open_slide, read_structure
from chunkdl.slides.slide import PixelRule, Pixels, Slide
from chunkdl.slides.structure import chosen_image
from tests.slides.tiff_pages import (
    TILE,
    Page,
    aperio,
    ome,
    ome_image,
    page,
    reduced,
    roles,
    size_of,
    sizes,
    write_tiff,
)

Read = Callable[[Slide, int, int, int, int, int], Pixels]
BASE = "level 0 of image 0"


@pytest.fixture(scope="module")
def label() -> Pixels:
    """A label: 120x150 pixels, of no slide's shape."""
    pixels = np.full((150, 120, 3), 255, np.uint8)
    pixels[20:60, 10:110] = (200, 30, 30)
    return pixels


@pytest.fixture(scope="module")
def macro() -> Pixels:
    """The whole glass: larger in pixels than the slide of these tests, 1400x500."""
    return np.full((500, 1400, 3), 230, np.uint8)


def level0(path: Path | str, read_region: Read) -> Pixels:
    with closing(open_slide(path)) as slide:
        level = slide.info.levels[0]
        return read_region(slide, 0, 0, 0, level.width, level.height)


# ---- Aperio


def svs(path: Path, picture: Pixels, *more: Page) -> Path:
    """Level 0, a thumbnail in strips, level 1, and more pages, as a scanner orders them."""
    size = size_of(picture)
    small = picture[::4, ::4]
    return write_tiff(
        path,
        page(picture, description=aperio(size, fields="|AppMag = 20|MPP = 0.5")),
        page(
            picture[::8, ::8],
            strips=True,
            description="Aperio Image Library v12\r\n900x700 -> 113x88 - |AppMag = 20",
        ),
        page(small, description=aperio(size, size_of(small))),
        *more,
    )


LEVELS_OF_SVS = [BASE, "thumbnail", "level 1 of image 0"]


@pytest.mark.parametrize(
    ("description", "options", "role"),
    [
        ("Aperio Image Library v12.0.15\nlabel 120x150", {"subfiletype": 1}, "label"),
        ("Aperio Image Library v12.0.15\r\nmacro 120x150", {"subfiletype": 9}, "macro"),
        ("label 120x150", {}, "label"),
        ("macro 120x150", {}, "macro"),
        ("", {"subfiletype": 9}, "macro"),
        ("", {"subfiletype": 1}, "label"),
        ("", {}, "unknown"),
    ],
)
@pytest.mark.parametrize("strips", [False, True])
def test_a_label_or_macro_of_an_svs_is_no_level_however_it_is_stored(
    description: str, options: dict[str, int], role: str, strips: bool, tmp_path: Path,
    picture: Pixels, label: Pixels,
) -> None:  # fmt: skip
    """In tiles or strips, with a description or only a type, or with nothing."""
    extra = page(label, description=description or None, strips=strips, **options)
    path = svs(tmp_path / "made.svs", picture, extra)
    assert roles(path) == [*LEVELS_OF_SVS, role]
    assert sizes(path) == [(900, 700), (225, 175)]


@pytest.mark.parametrize(
    "description", ["Aperio Image Library v12\nlabel 450x350", "macro 450x350"]
)
def test_a_label_or_macro_that_has_the_shape_of_the_slide_is_no_level(
    description: str, tmp_path: Path, picture: Pixels
) -> None:
    """Its description goes before its shape."""
    extra = page(picture[::2, ::2], description=description, subfiletype=1)
    path = svs(tmp_path / "made.svs", picture, extra)
    assert sizes(path) == [(900, 700), (225, 175)]


def test_a_picture_without_description_that_has_about_the_shape_of_an_svs_is_no_level(
    tmp_path: Path, picture: Pixels
) -> None:
    """270x210 is 900x700 reduced 3.33 times: no scanner reduces so, and a label may be so large."""
    extra = page(np.ascontiguousarray(picture[:210, :270]), subfiletype=1)
    assert roles(svs(tmp_path / "made.svs", picture, extra)) == [*LEVELS_OF_SVS, "label"]


def test_the_macro_of_an_svs_is_not_the_slide_though_it_is_larger(
    tmp_path: Path, picture: Pixels, macro: Pixels, read_region: Read
) -> None:
    """A small region, and the whole glass beside it, also without a description of Aperio's."""
    for number, extra in enumerate(
        (page(macro, description="macro 1400x500"), page(macro, subfiletype=9), page(macro))
    ):
        path = svs(tmp_path / f"{number}.svs", picture, extra)
        assert roles(path)[:3] == LEVELS_OF_SVS
        np.testing.assert_array_equal(level0(path, read_region), picture)


def test_an_svs_may_have_its_pages_in_any_order(tmp_path: Path, picture: Pixels) -> None:
    """All orders of level 0, level 1, label and macro have the same two levels."""
    size, small = size_of(picture), picture[::4, ::4]
    pages = {
        "base": page(picture, description=aperio(size)),
        "small": page(small, description=aperio(size, size_of(small))),
        "label": page(picture[:150, :120], description="label 120x150"),
        "macro": page(picture[:200, :600], description="macro 600x200"),
    }
    for number, names in enumerate(itertools.permutations(pages)):
        path = write_tiff(tmp_path / f"{number}.svs", *(pages[name] for name in names))
        assert read_structure(path).format == "Aperio SVS"
        assert sizes(path) == [(900, 700), (225, 175)]


def test_a_description_on_a_reduced_page_alone_does_not_make_it_the_slide(
    tmp_path: Path, picture: Pixels, macro: Pixels
) -> None:
    """Some converters keep the description of one page; the larger macro is not a slide either."""
    size, small = size_of(picture), np.ascontiguousarray(picture[::4, ::4])
    described = page(small, description=aperio(size, size_of(small), "|MPP = 0.5"))
    path = write_tiff(tmp_path / "a.svs", page(macro), page(picture), described)
    assert roles(path) == ["unknown", BASE, "level 1 of image 0"]
    assert read_structure(path).images[0].mpp == (0.5, 0.5)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_focal_planes_of_an_svs_are_no_levels_and_the_one_in_focus_is_read(
    first: int, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Wherever it lies in the file; its levels are its own and not those of another plane."""
    offsets = [("0", picture), ("1,5", 255 - picture), ("-1.5", picture // 2)]
    order = offsets[first:] + offsets[:first]
    size = size_of(picture)
    pages = []
    for offset, pixels in order:
        fields = f"|AppMag = 20|OffsetZ = {offset}"
        small = pixels[::4, ::4]
        pages += [
            page(pixels, description=aperio(size, fields=fields)),
            page(small, description=aperio(size, size_of(small), fields)),
        ]
    path = write_tiff(tmp_path / "stack.svs", *pages)
    found = roles(path)
    assert found.count("focal plane") == 4
    at = 2 * [offset for offset, _ in order].index("0")
    assert found[at : at + 2] == [BASE, "level 1 of image 0"]
    with closing(open_slide(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 0, 0, 0, 900, 700), picture)
        np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 225, 175), picture[::4, ::4])
        assert any("3 focal planes" in note for note in slide.info.notes)


@pytest.mark.parametrize("rows", [1, 700])
def test_a_crop_that_kept_its_aperio_description_is_read_in_strips(
    rows: int, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """ImageScope exports so: its own description says (0x0) for the tiles."""
    text = "Aperio Image Library v8.2.43\n81713x37331 [70791,733 900x700] (0x0) RAW;Scan"
    path = write_tiff(
        tmp_path / "crop.tif",
        page(picture, tile=None, rowsperstrip=rows, compression=None,
             description=f"{text}|AppMag = 20|MPP = 0.4970"),
    )  # fmt: skip
    np.testing.assert_array_equal(level0(path, read_region), picture)
    assert read_structure(path).images[0].mpp == (0.497, 0.497)


# ---- TIFF of no vendor


@pytest.mark.parametrize("marked", [True, False])
def test_levels_of_a_plain_tiff_come_in_any_order(
    marked: bool, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Marked as reduced, or known by their size alone."""
    kind = {"subfiletype": 1 if marked else 0}
    pages = [page(picture), *(reduced(picture, factor, **kind) for factor in (2, 4))]
    for number, order in enumerate(itertools.permutations(pages)):
        path = write_tiff(tmp_path / f"{number}.tif", *order)
        assert sizes(path) == [(900, 700), (450, 350), (225, 175)]
        with closing(open_slide(path)) as slide:
            np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 450, 350), picture[::2, ::2])


def test_a_thumbnail_that_is_the_first_page_of_a_plain_tiff_is_not_the_slide(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Not marked, in strips or tiles, of the slide's shape or nearly, or called a thumbnail."""
    around = np.ascontiguousarray(picture[:77, :99])
    for number, first in enumerate(
        (
            page(picture[::7, ::7], strips=True),
            page(picture[::7, ::7]),
            page(around),
            page(picture[::4, ::4], description="thumbnail"),
            page(picture[::4, ::4], extratags=[(285, 2, 0, "Thumbnail", True)]),
        )
    ):
        path = write_tiff(tmp_path / f"{number}.tif", first, page(picture), reduced(picture, 2))
        assert roles(path)[0] in ("thumbnail", "unknown")
        assert sizes(path) == [(900, 700), (450, 350)]
        np.testing.assert_array_equal(level0(path, read_region), picture)


def test_a_macro_of_a_plain_tiff_is_known_by_its_pixel_size_or_its_name(
    tmp_path: Path, picture: Pixels, macro: Pixels, read_region: Read
) -> None:
    """Also where it is larger than the slide and comes first."""
    fine = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    coarse = {"resolution": (400, 400), "resolutionunit": "CENTIMETER"}
    for number, first in enumerate(
        page(macro, **one)
        for one in (coarse, {"description": "Macro"}, {"description": "the macro image"})
    ):
        path = write_tiff(tmp_path / f"{number}.tif", first, page(picture, **fine))
        assert roles(path) == ["macro", BASE]
        np.testing.assert_array_equal(level0(path, read_region), picture)


@pytest.mark.parametrize("kind", ["ome", "tiff"])
def test_a_macro_of_the_shape_of_the_slide_is_no_level(
    kind: str, tmp_path: Path, picture: Pixels
) -> None:
    """Both square, a quarter of its sides, and its pixels 32 times as large: not reduced by 4."""
    slide, glass = np.ascontiguousarray(picture[:640, :640]), np.full((160, 160, 3), 99, np.uint8)
    xml = ome(ome_image(0, "", (160, 160), 16), ome_image(1, "", (640, 640), 0.5))
    first = {"description": xml} if kind == "ome" else {}
    path = write_tiff(
        tmp_path / "a.tif",
        page(glass, resolution=(625, 625), resolutionunit="CENTIMETER", **first),
        page(slide, resolution=(20_000, 20_000), resolutionunit="CENTIMETER"),
    )
    assert roles(path) == ["macro", BASE]


def test_an_unmarked_page_at_the_resolution_of_the_slide_is_no_level_of_it(
    tmp_path: Path, picture: Pixels
) -> None:
    """Half as wide and high at the same microns per pixel shows another place."""
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    half = np.ascontiguousarray(picture[:350, :450])
    path = write_tiff(tmp_path / "a.tif", page(half, **tags), page(picture, **tags))
    assert roles(path) == ["unknown", BASE]


def test_a_word_in_a_description_is_no_name(tmp_path: Path, picture: Pixels) -> None:
    """Macrophages, label-free imaging and macro-dissected tissue are slides."""
    for text in ("Macrophages, CD68", "label-free imaging", "macro-dissected tumour 12"):
        path = write_tiff(tmp_path / "slide.tif", page(picture, description=text))
        assert roles(path) == [BASE]


def test_a_reduced_page_of_another_shape_is_no_level(
    tmp_path: Path, picture: Pixels, label: Pixels
) -> None:
    """A tiled label that is marked as reduced, and one in a SubIFD."""
    extra = page(label, subfiletype=1)
    path = write_tiff(tmp_path / "a.tif", page(picture, extra), reduced(picture, 2), extra)
    assert roles(path) == [BASE, "unknown", "level 1 of image 0", "unknown"]


def test_a_map_beside_the_slide_is_no_level(tmp_path: Path, picture: Pixels) -> None:
    """A grey one of half its size, and one that its type calls a mask."""
    grey = np.ascontiguousarray(picture[::2, ::2, 0])
    path = write_tiff(
        tmp_path / "a.tif",
        page(picture),
        page(grey),
        page(grey > 128, subfiletype=5),
        reduced(picture, 4),
    )
    assert roles(path) == [BASE, "unknown", "map", "level 1 of image 0"]


def test_each_slide_of_a_plain_tiff_can_be_named_and_none_is_guessed(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Each with the reduced pages of its shape; the error has the sizes and how to say which."""
    second = np.ascontiguousarray(np.rot90(picture[:, :760]))
    path = write_tiff(
        tmp_path / "two.tif",
        page(picture), page(second), reduced(second, 2), reduced(picture, 2),
    )  # fmt: skip
    assert roles(path) == [
        BASE, "level 0 of image 1", "level 1 of image 1", "level 1 of image 0",
    ]  # fmt: skip
    with pytest.raises(SlideError, match=r"2 slides.*#image=K.*900x700.*#image=1 of 700x760"):
        open_slide(path)
    np.testing.assert_array_equal(level0(f"{path}#image=0", read_region), picture)
    np.testing.assert_array_equal(level0(f"{path}#image=1", read_region), second)
    with pytest.raises(SlideError, match="no image 2"):
        open_slide(f"{path}#image=2")
    with pytest.raises(SlideError, match="use the reader 'auto'"):
        open_slide(f"{path}#image=1", "openslide")


def test_pages_of_one_size_are_slides_of_their_own(tmp_path: Path, picture: Pixels) -> None:
    """Focal planes or slides cut to one size: the file does not say, so somebody has to choose."""
    path = write_tiff(tmp_path / "same.tif", page(picture), page(255 - picture))
    assert roles(path) == [BASE, "level 0 of image 1"]
    with pytest.raises(SlideError, match="2 slides"):
        open_slide(path)


def test_grey_pages_of_one_size_are_the_channels_of_one_slide(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Which of them is red somebody has to say; ones that are stored apart are not put together."""
    planes = [np.ascontiguousarray(picture[..., channel]) for channel in range(3)]
    path = write_tiff(tmp_path / "planes.tif", *map(page, planes))
    assert roles(path) == [BASE, "channel", "channel"]
    with pytest.raises(SlideError, match=r"channels=\(0, 1, 2\)"):
        open_slide(path)
    rule = PixelRule(channels=(2, 1, 0))
    with closing(open_slide(path, rule=rule)) as slide:
        got = read_region(slide, 0, 0, 0, 900, 700)
    np.testing.assert_array_equal(got, picture[..., ::-1])
    odd = write_tiff(
        tmp_path / "odd.tif", page(planes[0]), page(planes[1], tile=(128, 128)), page(planes[2])
    )
    with pytest.raises(SlideError, match="write all channels alike"):
        open_slide(odd, rule=rule)


# ---- OME-TIFF


@pytest.mark.parametrize(
    "name", ["label image", "Label", "case 12.scn [macro]", "Overview", "thumb"]
)
@pytest.mark.parametrize("first", [True, False])
def test_an_image_that_is_called_a_label_or_macro_is_not_the_slide(
    name: str, first: bool, tmp_path: Path, picture: Pixels, macro: Pixels, read_region: Read
) -> None:
    """Before or behind the slide, and larger than it."""
    slide, other = (0, 1) if not first else (1, 0)
    images = [
        ome_image(slide, "case 12", size_of(picture), 0.5),
        ome_image(other, name, size_of(macro)),
    ]
    pixels = [picture, macro]
    if first:
        images, pixels = images[::-1], pixels[::-1]
    pages = [page(pixels[0], reduced(pixels[0], 2), description=ome(*images)), page(pixels[1])]
    path = write_tiff(tmp_path / "made.ome.tif", *pages)
    assert roles(path).count(BASE) == 1
    assert sizes(path)[0] == (900, 700)
    np.testing.assert_array_equal(level0(path, read_region), picture)


@pytest.mark.parametrize(
    "name", ["macrophages", "label-free", "immunolabel", "macro_dissected.svs"]
)
def test_a_name_that_only_has_such_a_word_in_it_is_a_slide(
    name: str, tmp_path: Path, picture: Pixels
) -> None:
    """Bio-Formats calls images by their files."""
    xml = ome(ome_image(0, name, size_of(picture), 0.5))
    assert roles(write_tiff(tmp_path / "a.ome.tif", page(picture, description=xml))) == [BASE]


@pytest.mark.parametrize("slide_first", [True, False])
def test_an_image_without_a_name_is_a_macro_by_its_pixel_size(
    slide_first: bool, tmp_path: Path, picture: Pixels, macro: Pixels, read_region: Read
) -> None:
    """Sixteen microns beside half a micron, though it has more pixels than the slide."""
    pictures = [(picture, 0.5), (macro, 16.0)]
    if not slide_first:
        pictures.reverse()
    xml = ome(*(ome_image(n, "", size_of(pixels), mpp) for n, (pixels, mpp) in enumerate(pictures)))
    pages = [page(pixels) for pixels, _ in pictures]
    pages[0] = page(pictures[0][0], description=xml)
    path = write_tiff(tmp_path / "made.ome.tif", *pages)
    assert sorted(roles(path)) == [BASE, "macro"]
    np.testing.assert_array_equal(level0(path, read_region), picture)


def test_a_small_image_that_says_nothing_is_not_the_slide(
    tmp_path: Path, picture: Pixels, label: Pixels
) -> None:
    """The label first, without a name or a pixel size."""
    xml = ome(ome_image(0, "", size_of(label)), ome_image(1, "", size_of(picture), 0.5))
    path = write_tiff(tmp_path / "a.ome.tif", page(label, description=xml), page(picture))
    assert roles(path) == ["unknown", BASE]


@pytest.mark.parametrize("scaled", [True, False])
def test_levels_that_were_written_as_images_of_their_own_are_levels(
    scaled: bool, tmp_path: Path, picture: Pixels, label: Pixels, read_region: Read
) -> None:
    """Bio-Formats flattens a pyramid so; with the pixel size of each, or with none."""
    reduced_pixels = [np.ascontiguousarray(picture[::factor, ::factor]) for factor in (1, 2, 16)]
    mpps = [0.5, 1.0, 8.0] if scaled else [None] * 3
    images = [
        ome_image(n, f"case.svs #{n + 1}", size_of(pixels), mpp)
        for n, (pixels, mpp) in enumerate(zip(reduced_pixels, mpps, strict=True))
    ]
    xml = ome(*images, ome_image(3, "label image", size_of(label)))
    path = write_tiff(
        tmp_path / "flat.ome.tif",
        page(picture, description=xml), *map(page, reduced_pixels[1:]), page(label),
    )  # fmt: skip
    assert roles(path) == [BASE, "level 1 of image 0", "level 2 of image 0", "label"]
    with closing(open_slide(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 2, 0, 0, 57, 44), reduced_pixels[2])


def test_a_region_of_the_same_shape_and_pixel_size_is_a_slide_of_its_own(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """Half as wide and high at the same microns per pixel: another place, and no level."""
    half = np.ascontiguousarray(picture[:350, :450])
    xml = ome(ome_image(0, "A", size_of(picture), 0.5), ome_image(1, "B", size_of(half), 0.5))
    path = write_tiff(tmp_path / "two.ome.tif", page(picture, description=xml), page(half))
    assert roles(path) == [BASE, "level 0 of image 1"]
    with pytest.raises(SlideError, match=r"'A' of 900x700.*#image=1 'B' of 450x350"):
        open_slide(path)
    np.testing.assert_array_equal(level0(f"{path}#image=1", read_region), half)


def test_the_channels_of_a_plain_tiff_have_the_levels_that_each_has_below_itself(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """SubIFDs say of which channel they are; reduced pages beside them do not, and are left out."""
    planes = [np.ascontiguousarray(picture[..., channel]) for channel in range(3)]
    with_levels = [page(plane, reduced(plane, 2), reduced(plane, 4)) for plane in planes]
    path = write_tiff(tmp_path / "a.tif", *with_levels)
    assert sizes(path) == [(900, 700), (450, 350), (225, 175)]
    with closing(open_slide(path, rule=PixelRule(channels=(0, 1, 2)))) as slide:
        np.testing.assert_array_equal(read_region(slide, 2, 0, 0, 225, 175), picture[::4, ::4])
    one_lacks = write_tiff(tmp_path / "b.tif", *with_levels[:2], page(planes[2]))
    assert sizes(one_lacks) == [(900, 700)]
    beside = write_tiff(tmp_path / "c.tif", *map(page, planes), *(reduced(p, 2) for p in planes))
    assert sizes(beside) == [(900, 700)]


def test_a_slide_in_strips_may_have_its_levels_in_tiles(
    tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """How a page is stored says nothing of what it is."""
    path = write_tiff(tmp_path / "a.tif", page(picture, strips=True), reduced(picture, 2))
    assert sizes(path) == [(900, 700), (450, 350)]
    with closing(open_slide(path)) as slide:
        np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 450, 350), picture[::2, ::2])


@pytest.mark.parametrize("marked", [0, 1])
def test_pages_that_the_xml_does_not_name_may_be_levels_and_are_not_slides(
    marked: int, tmp_path: Path, picture: Pixels, label: Pixels
) -> None:
    """Marked as reduced or halved exactly; a label is called one."""
    path = write_tiff(
        tmp_path / "a.ome.tif",
        page(picture, description=ome(ome_image(0, "", size_of(picture), 0.5))),
        reduced(picture, 2, subfiletype=marked),
        page(label, description="label"),
        page(label),
    )
    assert roles(path) == [BASE, "level 1 of image 0", "label", "unknown"]


@pytest.mark.parametrize("subifds", [True, False])
def test_rgb_of_an_ome_tiff_may_be_stored_in_planes(
    subifds: bool, tmp_path: Path, picture: Pixels, read_region: Read
) -> None:
    """One page whose planes lie apart, or a page for each named channel, with their levels."""
    planes = [np.ascontiguousarray(picture[..., channel]) for channel in range(3)]
    if subifds:
        xml = ome(ome_image(0, "", size_of(picture), 0.5, channels=("Red", "Green", "Blue")))
        pages = [
            page(plane, reduced(plane, 2), description=xml if plane is planes[0] else None)
            for plane in planes
        ]
    else:
        xml = ome(ome_image(0, "", size_of(picture), 0.5))
        joined = np.stack(planes)
        pages = [page(joined, photometric="rgb", planarconfig="separate", description=xml)]
    path = write_tiff(tmp_path / "planes.ome.tif", *pages)
    np.testing.assert_array_equal(level0(path, read_region), picture)
    if subifds:
        assert sizes(path) == [(900, 700), (450, 350)]
        with closing(open_slide(path)) as slide:
            np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 450, 350), picture[::2, ::2])


def test_focal_planes_of_an_ome_tiff_are_no_slides(tmp_path: Path, picture: Pixels) -> None:
    """Which one is meant nobody can say, so the file is refused with what to do."""
    xml = ome(ome_image(0, "stack", size_of(picture), 0.5, depth=3))
    path = write_tiff(
        tmp_path / "stack.ome.tif", page(picture, description=xml), page(picture), page(picture)
    )
    assert roles(path) == [BASE, "focal plane", "focal plane"]
    with pytest.raises(SlideError, match=r"3 focal planes.*write one of them into a file"):
        open_slide(path)


# ---- Every kind


def test_a_file_of_nothing_but_labels_has_no_slide(tmp_path: Path, label: Pixels) -> None:
    """The error names each page and its role."""
    path = write_tiff(
        tmp_path / "labels.tif",
        page(label, description="label"), page(label, description="Macro"),
    )  # fmt: skip
    with pytest.raises(SlideError, match=r"directory 0: label, directory 1: macro.*--structure"):
        open_slide(path)
    assert not read_structure(path).images


def test_the_model_says_why_each_page_is_what_it_is(tmp_path: Path, picture: Pixels) -> None:
    """Pages, images and levels are of one piece: each level of an image is a page."""
    path = svs(tmp_path / "made.svs", picture)
    structure = read_structure(path)
    assert all(one.why and one.pixels for one in structure.pages)
    image = chosen_image(structure, None)
    pages = [one for one in structure.pages if one.image == image.number]
    assert [one.level for one in pages] == [*range(len(image.levels))]
    assert {(level.tile_width, level.tile_height) for level in image.levels} == {(TILE, TILE)}
