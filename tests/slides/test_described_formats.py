"""Philips, Leica SCN, QPTIFF and Ventana BIF: what their own descriptions say of each directory."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile

from chunkdl.errors import SlideError
from chunkdl.slides.readers import leica, ndpi, philips, qptiff, ventana
from chunkdl.slides.readers.directories import Directory, directories_of, pixels_text
from chunkdl.slides.readers.refusals import NotTaken, Refused
from chunkdl.slides.readers.tiled import TiledLevel, TiledSlide, TileMaker, single
from chunkdl.slides.readers.xml_text import parse_xml
from chunkdl.slides.slide import Pixels, SlideInfo
from chunkdl.slides.structure import Structure, chosen_image

Read = Callable[[TiledSlide, int, int, int, int, int], Pixels]
TILE = 128


def directories_in(path: Path) -> tuple[Directory, ...]:
    with tifffile.TiffFile(path) as tiff:
        return directories_of(tiff)


def structure_in(path: Path, kind: ModuleType) -> Structure:
    """The model of a file, after a check that this kind and no other claims it."""
    directories = directories_in(path)
    kinds = [each for each in (leica, ndpi, philips, qptiff, ventana) if each.is_kind(directories)]
    assert kinds == [kind]
    structure, levels = kind.structure_of(str(path), directories)
    assert isinstance(structure, Structure)
    assert [len(image.levels) for image in structure.images] == [len(each) for each in levels]
    for page in structure.pages:
        if page.level is not None and page.image is not None:
            assert levels[page.image][page.level].name == page.name
    return structure


def maker_of(directory: Directory) -> TileMaker:
    """Makes tiles of what the writers here and the shared slides use: deflate and JPEG."""

    def decode(data: bytes, tile: Pixels) -> None:
        if directory.compression == 7:
            tables = directory.jpeg_tables
            imagecodecs.jpeg8_decode(
                data, tables=tables, colorspace="YCBCR", outcolorspace="RGB", out=tile
            )
        else:
            tile[...] = np.frombuffer(zlib.decompress(data), np.uint8).reshape(tile.shape)

    return single(decode)


def opened(path: Path, kind: ModuleType, number: int | None = None) -> TiledSlide:
    structure, per_image = kind.structure_of(str(path), directories_in(path))
    image = chosen_image(structure, number)
    levels = [
        TiledLevel(
            level=level,
            tiles_across=-(-directory.width // directory.tile_width),
            offsets=directory.offsets[None],
            byte_counts=directory.byte_counts[None],
            full_height=True,
            make=maker_of(directory),
            files=(str(path),),
        )
        for level, directory in zip(image.levels, per_image[image.number], strict=True)
    ]
    return TiledSlide(SlideInfo(str(path), "tiff", image.levels, image.mpp), levels)


def write(tiff: tifffile.TiffWriter, pixels: Pixels, description: str = "", **options: Any) -> None:
    grey = pixels.ndim == 2
    plain: dict[str, Any] = {
        "photometric": "minisblack" if grey else "rgb",
        "tile": (TILE, TILE),
        "compression": "zlib",
        "metadata": None,
        "software": False,
    }
    tiff.write(pixels, description=description or None, **{**plain, **options})


def roles(structure: Structure) -> list[str]:
    return [page.role for page in structure.pages]


def sizes(structure: Structure, image: int = 0) -> list[tuple[int, int]]:
    return [(level.width, level.height) for level in structure.images[image].levels]


def patches(seed: int, count: int, size: Sequence[int]) -> Pixels:
    """A picture of (height, width) in squares of even colour, each larger than any reduction."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-size[0] // count), -(-size[1] // count), 3), dtype=np.uint8)
    large = small.repeat(count, axis=0).repeat(count, axis=1)
    return np.ascontiguousarray(large[: size[0], : size[1]])


# ---- Philips


def philips_xml(
    spacings: Sequence[tuple[float, float]], *, slides: int = 1, label: bool = False
) -> str:
    def attribute(name: str, text: str) -> str:
        return f'<Attribute Name="{name}">{text}</Attribute>'

    def spacing(x: float, y: float) -> str:
        return attribute("DICOM_PIXEL_SPACING", f"&quot;{y:.6g}&quot; &quot;{x:.6g}&quot;")

    levels = "".join(
        '<DataObject ObjectType="PixelDataRepresentation">'
        + spacing(*each)
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER", str(number))
        + "</DataObject>"
        for number, each in enumerate(spacings)
    )
    scan = (
        '<DataObject ObjectType="DPScannedImage">'
        + attribute("PIM_DP_IMAGE_TYPE", "WSI")
        + attribute("DICOM_DERIVATION_DESCRIPTION", "tiff-useBigTIFF=1-levels=20,10002-q80")
        + spacing(*spacings[0])
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{levels}</Array>")
        + "</DataObject>"
    )
    other = '<DataObject ObjectType="DPScannedImage">'
    other += attribute("PIM_DP_IMAGE_TYPE", "LABELIMAGE") + "</DataObject>"
    scans = scan * slides + (other if label else "")
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + attribute("PIM_DP_SCANNED_IMAGES", f"<Array>{scans}</Array>")
        + "</DataObject>"
    )


def padded(pixels: Pixels) -> Pixels:
    height, width = (-(-side // TILE) * TILE for side in pixels.shape[:2])
    out = np.full((height, width, 3), 77, np.uint8)
    out[: pixels.shape[0], : pixels.shape[1]] = pixels
    return out


def write_philips(
    path: Path,
    spacings: Sequence[tuple[float, float]],
    *,
    absent: Sequence[int] = (),
    **xml: Any,
) -> Pixels:
    """A base of 11 x 5 tiles, its reductions by 2 and 4 padded to tiles, and a macro.

    Returns:
        The pixels of the base.
    """
    base = patches(3, 8, (5 * TILE, 11 * TILE))

    def tiles() -> Iterator[bytes]:
        for index in range(55):
            row, column = divmod(index, 11)
            part = base[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            yield b"" if index in absent else zlib.compress(part.tobytes())

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        options: dict[str, Any] = {
            "photometric": "rgb",
            "tile": (TILE, TILE),
            "compression": "zlib",
        }
        description = philips_xml(spacings, **xml)
        tiff.write(
            tiles(),
            shape=base.shape,
            dtype=base.dtype,
            description=description,
            software="Philips DP v1.0",
            metadata=None,
            **options,
        )
        for number, factor in ((1, 2), (2, 4)):
            reduced = padded(base[::factor, ::factor])
            write(tiff, reduced, f"level={number} mag={20 / factor:g} quality=80", subfiletype=1)
        write(tiff, base[:100, :300], "Macro", tile=None, subfiletype=1)
    return base


def test_philips_levels_have_their_true_sizes_and_downsamples(
    tmp_path: Path, read_region: Read
) -> None:
    """The same place of the slide on all levels, though the stored sizes say another factor."""
    path = tmp_path / "padded.tiff"
    base = write_philips(path, [(0.00025, 0.00025), (0.0005, 0.0005), (0.001, 0.001)], label=True)
    structure = structure_in(path, philips)
    assert roles(structure) == ["level", "level", "level", "macro"]
    assert [(page.width, page.height) for page in structure.pages[1:3]] == [(768, 384), (384, 256)]
    assert sizes(structure) == [(1408, 640), (704, 320), (352, 160)]
    (image,) = structure.images
    assert [level.downsample for level in image.levels] == [1.0, 2.0, 4.0]
    assert image.mpp == pytest.approx((0.25, 0.25))
    assert image.magnification == 20
    assert structure.notes == ("The label is in the XML only, as a picture that is not read.",)
    with closing(opened(path, philips)) as slide:
        for level, factor in ((0, 1), (1, 2), (2, 4)):
            width, height = 1408 // factor, 640 // factor
            np.testing.assert_array_equal(
                read_region(slide, level, 0, 0, width, height), base[::factor, ::factor]
            )


def test_philips_spacings_are_rows_first(tmp_path: Path) -> None:
    """DICOM names the distance between rows first: that is y."""
    path = tmp_path / "oblong.tiff"
    write_philips(path, [(0.00025, 0.0003), (0.0005, 0.0006), (0.001, 0.0012)])
    (image,) = structure_in(path, philips).images
    assert image.mpp == pytest.approx((0.25, 0.3))
    assert any("not square" in note for note in image.notes)


def test_philips_factors_come_from_spacings_of_few_digits(tmp_path: Path) -> None:
    """Rounded spacings are 1.99999 times the first, and the level is 2 times coarser."""
    path = tmp_path / "rounded.tiff"
    write_philips(path, [(0.000227273,) * 2, (0.000454545,) * 2, (0.000909091,) * 2])
    (image,) = structure_in(path, philips).images
    assert [level.downsample for level in image.levels] == [1.0, 2.0, 4.0]


def test_philips_tiles_that_are_absent_are_background_and_never_tissue(
    tmp_path: Path, read_region: Read
) -> None:
    """Offset 0 and count 0: the scanner left them out."""
    path = tmp_path / "sparse.tiff"
    base = write_philips(
        path, [(0.00025, 0.00025), (0.0005, 0.0005), (0.001, 0.001)], absent=(1, 12)
    )
    with closing(opened(path, philips)) as slide:
        scanned = slide.scanned()
        assert scanned is not None
        assert [tuple(cell) for cell in np.argwhere(~scanned.cells)] == [(0, 1), (1, 1)]
        whole = read_region(slide, 0, 0, 0, 1408, 640)
        expected = base.copy()
        expected[: 2 * TILE, TILE : 2 * TILE] = 255
        np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize(
    ("spacings", "options", "reason"),
    [
        ([(0.00025, 0.00025), (0.0005, 0.0005)], {}, "no pixel spacing of level 2"),
        ([(0.00025,) * 2, (0.001,) * 2, (0.002,) * 2], {}, "times coarser"),
        ([(0.00025,) * 2, (0.0005,) * 2, (0.001,) * 2], {"slides": 2}, "describes 2 slides"),
    ],
)
def test_a_philips_file_whose_places_are_unknown_is_refused(
    spacings: list[tuple[float, float]], options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """No spacing, one that contradicts the stored size, or two slides in one pyramid."""
    path = tmp_path / "unknown.tiff"
    write_philips(path, spacings, **options)
    with pytest.raises(Refused, match=reason):
        philips.structure_of(str(path), directories_in(path))


# ---- Leica


def scn_image(
    name: str,
    view: tuple[int, int, int, int],
    dimensions: Sequence[tuple[int, int, int, int, int, int]],
    objective: str = "20",
) -> str:
    """An image of an SCN; dimensions are (ifd, r, c, z, width, height)."""
    pictures = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" c="{c}" z="{z}" ifd="{ifd}"/>'
        for ifd, r, c, z, w, h in dimensions
    )
    x, y, across, down = view
    return (
        f'<image name="{name}"><pixels>{pictures}</pixels>'
        f'<view sizeX="{across}" sizeY="{down}" offsetX="{x}" offsetY="{y}"/>'
        "<scanSettings><objectiveSettings>"
        f"<objective>{objective}</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
    )


def scn_xml(*images: str) -> str:
    return (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="26564000" sizeY="76734000">{"".join(images)}</collection></scn>'
    )


MACRO = scn_image("macro", (0, 0, 26564000, 76734000), [(0, 0, 0, 0, 160, 462)], "0.6")


def write_scn(path: Path, xml: str, *pictures: Pixels) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for index, pixels in enumerate(pictures):
            write(tiff, pixels, xml if index == 0 else "")


def test_areas_of_an_scn_are_slides_of_their_own_and_the_macro_is_none(
    tmp_path: Path, read_region: Read
) -> None:
    """The macro comes first and is the largest; two areas are chosen by number, none by itself."""
    one, two = patches(1, 8, (600, 804)), patches(2, 8, (404, 1000))
    macro = patches(5, 8, (1462, 1160))
    images = (
        scn_image("macro", (0, 0, 26564000, 76734000), [(0, 0, 0, 0, 1160, 1462)], "0.6"),
        scn_image(
            "left", (1000, 2000, 402000, 300000), [(1, 0, 0, 0, 804, 600), (3, 1, 0, 0, 201, 150)]
        ),
        scn_image(
            "right", (9000, 2000, 250000, 101000), [(4, 1, 0, 0, 250, 101), (2, 0, 0, 0, 1000, 404)]
        ),
    )
    path = tmp_path / "two.scn"
    write_scn(path, scn_xml(*images), macro, one, two, one[::4, ::4], two[::4, ::4])
    structure = structure_in(path, leica)
    assert roles(structure) == ["macro", "level", "level", "level", "level"]
    assert [image.name for image in structure.images] == ["left", "right"]
    assert sizes(structure, 0) == [(804, 600), (201, 150)]
    assert sizes(structure, 1) == [(1000, 404), (250, 101)]
    for image in structure.images:
        assert [level.downsample for level in image.levels] == [1.0, 4.0]
        assert image.magnification == 20
        assert any("corner of the scanned area" in note for note in image.notes)
    assert structure.images[0].mpp == pytest.approx((0.5, 0.5))
    assert structure.images[1].mpp == pytest.approx((0.25, 0.25))
    for number, pixels in enumerate((one, two)):
        with closing(opened(path, leica, number)) as slide:
            height, width = pixels.shape[:2]
            np.testing.assert_array_equal(read_region(slide, 0, 0, 0, width, height), pixels)
            np.testing.assert_array_equal(
                read_region(slide, 1, 3, 5, 190, 90), pixels[::4, ::4][5:95, 3:193]
            )


def test_other_focal_planes_of_an_scn_are_no_levels(tmp_path: Path) -> None:
    """Plane 0 is the slide."""
    dimensions = [(1, 0, 0, 0, 400, 300), (2, 0, 0, 1, 400, 300)]
    path = tmp_path / "planes.scn"
    xml = scn_xml(MACRO, scn_image("area", (1, 1, 200000, 150000), dimensions))
    area = patches(1, 8, (300, 400))
    write_scn(path, xml, patches(5, 8, (462, 160)), area, area)
    structure = structure_in(path, leica)
    assert roles(structure) == ["macro", "level", "focal plane"]
    assert sizes(structure) == [(400, 300)]
    assert any("1 more focal planes" in note for note in structure.images[0].notes)


def test_fluorescence_of_an_scn_is_no_slide_and_says_why(tmp_path: Path) -> None:
    """Channels that are stored one by one."""
    dimensions = [(1, 0, 0, 0, 400, 300), (2, 0, 1, 0, 400, 300)]
    path = tmp_path / "channels.scn"
    xml = scn_xml(MACRO, scn_image("area", (1, 1, 200000, 150000), dimensions))
    grey = patches(1, 8, (300, 400))[..., 0]
    write_scn(path, xml, patches(5, 8, (462, 160)), grey, grey)
    structure = structure_in(path, leica)
    assert roles(structure) == ["macro", "level", "channel"]
    assert structure.images == ()
    assert "in 2 channels and has no RGB pixels" in structure.notes[0]


@pytest.mark.parametrize(
    ("dimension", "reason"),
    [
        ((7, 0, 0, 0, 400, 300), "directory 7, which the file does not have"),
        ((1, 0, 0, 0, 4000, 300), "says 4000x300 pixels of directory 1"),
    ],
)
def test_scn_xml_that_contradicts_the_file_is_an_error(
    dimension: tuple[int, int, int, int, int, int], reason: str, tmp_path: Path
) -> None:
    """A directory that is not there, or more pixels than it has."""
    path = tmp_path / "wrong.scn"
    xml = scn_xml(MACRO, scn_image("area", (1, 1, 200000, 150000), [dimension]))
    write_scn(path, xml, patches(5, 8, (462, 160)), patches(1, 8, (300, 400)))
    with pytest.raises(ValueError, match=reason):
        leica.structure_of(str(path), directories_in(path))


# ---- QPTIFF


def qpi(kind: str, more: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-16"?>\r\n<PerkinElmer-QPI-ImageDescription>'
        f"<ImageType>{kind}</ImageType><Objective>20x [20x]</Objective>{more}"
        "</PerkinElmer-QPI-ImageDescription>"
    )


def test_qptiff_directories_are_what_their_image_type_says(
    tmp_path: Path, read_region: Read
) -> None:
    """The thumbnail comes second and has the shape of the slide; macro and label come last."""
    base = patches(4, 8, (640, 960))
    path = tmp_path / "he.qptiff"
    with tifffile.TiffWriter(path) as tiff:
        resolution = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
        write(tiff, base, qpi("FullResolution"), **resolution)
        write(tiff, base[::8, ::8], qpi("Thumbnail"))
        write(tiff, base[::2, ::2], qpi("ReducedResolution"), subfiletype=1)
        write(tiff, base[::4, ::4], qpi("ReducedResolution"), subfiletype=1)
        write(tiff, base[::4, ::4], qpi("Overview"))
        write(tiff, base[::2, ::2], qpi("Label"))
    structure = structure_in(path, qptiff)
    assert roles(structure) == ["level", "thumbnail", "level", "level", "macro", "label"]
    assert sizes(structure) == [(960, 640), (480, 320), (240, 160)]
    (image,) = structure.images
    assert [level.downsample for level in image.levels] == [1.0, 2.0, 4.0]
    assert image.mpp == pytest.approx((0.5, 0.5))
    assert image.magnification == 20
    with closing(opened(path, qptiff)) as slide:
        np.testing.assert_array_equal(read_region(slide, 1, 0, 0, 480, 320), base[::2, ::2])


def test_qptiff_channels_are_named_and_never_a_slide(tmp_path: Path) -> None:
    """One directory a channel: none of them is the picture."""
    grey = patches(4, 8, (640, 960))[..., 0]
    path = tmp_path / "fluorescence.qptiff"
    with tifffile.TiffWriter(path) as tiff:
        for name in ("DAPI", "Opal 520", "Opal 690"):
            write(tiff, grey, qpi("FullResolution", f"<Name>{name}</Name>"))
        write(tiff, patches(4, 8, (80, 120)), qpi("Thumbnail"))
        for name in ("DAPI", "Opal 520", "Opal 690"):
            write(tiff, grey[::2, ::2], qpi("ReducedResolution", f"<Name>{name}</Name>"))
    structure = structure_in(path, qptiff)
    assert roles(structure) == [*["channel"] * 3, "thumbnail", *["channel"] * 3]
    assert structure.images == ()
    assert "3 pictures of full resolution, each of one channel" in structure.notes[0]


# ---- Ventana

ISCAN = '<iScan Magnification="20" ScanRes="0.465" ScannerModel="VENTANA DP 200"{}/>'


def encoding(across: int, down: int, *, overlap: int = 0, areas: int = 1, more: str = "") -> str:
    joints = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="RIGHT" Tile1="{tile}" '
        f'Tile2="{tile + 1}" OverlapX="{overlap if tile == 2 else 0}" OverlapY="0"/>'
        for tile in range(1, across)
    )
    info = (
        f'<ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{down}" NumCols="{across}" '
        f'Width="{TILE}" Height="{TILE}" Pos-X="0" Pos-Y="0">{joints}{more}</ImageInfo>'
    )
    ignored = '<ImageInfo AOIScanned="0" AOIIndex="9" NumRows="1" NumCols="1"/>'
    origins = "".join(f'<AOI{each} OriginX="0" OriginY="0"/>' for each in range(areas))
    return (
        f'<EncodeInfo Ver="2"><SlideStitchInfo>{info * areas}{ignored}</SlideStitchInfo>'
        f"<AoiOrigin>{origins}</AoiOrigin></EncodeInfo>"
    )


def write_bif(path: Path, encode: str, scan: str = ISCAN.format("")) -> Pixels:
    """A label image, a map, and levels 0 to 2 of 7 x 4 tiles, padded to tiles."""
    base = patches(6, 8, (4 * TILE, 7 * TILE))

    def packet(text: str) -> dict[str, Any]:
        data = text.encode()
        return {"extratags": [(700, 1, len(data), data, True)]} if text else {}

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        write(tiff, base[:100, :300], "Label_Image", tile=None, **packet(scan))
        write(tiff, base[:100, :300, 0], "Probability_Image", tile=None)
        write(tiff, base, "level=0 mag=20 quality=95", **packet(encode))
        write(tiff, padded(base[::2, ::2]), "level=1 mag=10 quality=95")
        write(tiff, padded(base[::4, ::4]), "level=2 mag=5 quality=95")
    return base


@pytest.mark.parametrize("encode", ["", encoding(7, 4)], ids=["without XML", "with XML"])
def test_bif_tiles_that_do_not_overlap_are_a_plain_grid(
    encode: str, tmp_path: Path, read_region: Read
) -> None:
    """Levels by their numbers and magnifications, without the padding."""
    path = tmp_path / "plain.bif"
    base = write_bif(path, encode)
    structure = structure_in(path, ventana)
    ventana.check_readable(directories_in(path))
    assert roles(structure) == ["macro", "map", "level", "level", "level"]
    assert sizes(structure) == [(896, 512), (448, 256), (224, 128)]
    (image,) = structure.images
    assert [level.downsample for level in image.levels] == [1.0, 2.0, 4.0]
    assert image.mpp == pytest.approx((0.465, 0.465))
    assert image.magnification == 20
    with closing(opened(path, ventana)) as slide:
        for level, factor in ((0, 1), (1, 2), (2, 4)):
            np.testing.assert_array_equal(
                read_region(slide, level, 0, 0, 896 // factor, 512 // factor),
                base[::factor, ::factor],
            )


FRAMES = "<FrameInfo><Frame XY='0,3' Z='0'/><Frame XY='1,3' Z='0'/></FrameInfo>"


@pytest.mark.parametrize(
    ("encode", "scan", "reason"),
    [
        (encoding(7, 4, overlap=24), "", "overlap"),
        (encoding(7, 4, areas=2), "", "2 areas"),
        (encoding(5, 4), "", "does not fill the grid"),
        (encoding(7, 4).replace('Pos-X="0"', 'Pos-X="96.5"'), "", "corner"),
        (encoding(7, 4).replace('OriginY="0"', 'OriginY="128"'), "", "corner"),
        (encoding(7, 4).replace("TileJointInfo", "Other"), "", "does not say whether"),
        (encoding(7, 4, more=FRAMES), "", "row by row"),
        (encoding(7, 4), ' Z-layers="3"', "3 focal planes"),
    ],
)
def test_bif_tiles_that_are_no_plain_grid_are_left_to_another_reader(
    encode: str, scan: str, reason: str, tmp_path: Path
) -> None:
    """Places on such a slide are not places in the grid of its tiles."""
    path = tmp_path / "joined.bif"
    write_bif(path, encode, ISCAN.format(scan))
    assert len(structure_in(path, ventana).images) == 1
    with pytest.raises(NotTaken, match=reason):
        ventana.check_readable(directories_in(path))


# ---- What all share


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type or entities"),
        ("<a>", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_xml_from_a_stranger_is_refused_before_it_can_grow(text: str, reason: str) -> None:
    """No document types, no entities; broken XML is an error with words."""
    with pytest.raises(ValueError, match=reason):
        parse_xml(text)


def test_xml_is_read_whatever_encoding_its_first_line_names() -> None:
    """The text is decoded already; a NUL and what follows is not a part of it."""
    root = parse_xml('\ufeff<?xml version="1.0" encoding="utf-16"?>\r\n<a b="µ"/>\0rest')
    assert (root.tag, root.get("b")) == ("a", "µ")


def test_directories_are_read_with_their_subifds(tmp_path: Path) -> None:
    """Each by a name that people can find again, with the facts of its tags."""
    base = patches(4, 8, (300, 400))
    path = tmp_path / "subifds.tif"
    with tifffile.TiffWriter(path) as tiff:
        write(tiff, base, "first", subifds=1, resolution=(4, 5), resolutionunit="INCH")
        write(tiff, base[::2, ::2], subfiletype=1)
        write(tiff, base[..., 0], tile=None, rowsperstrip=64)
    first, below, last = directories_in(path)
    assert [each.name for each in (first, below, last)] == [
        "directory 0",
        "directory 0, SubIFD 0",
        "directory 1",
    ]
    assert (first.size, first.block, first.is_rgb) == ((400, 300), (128, 128), True)
    assert (first.description, first.resolution, first.resolution_unit) == ("first", (4.0, 5.0), 2)
    assert (below.size, below.number, below.sub, below.subfile_type) == ((200, 150), 0, 0, 1)
    assert (last.block, last.is_rgb, len(last.offsets)) == ((400, 64), False, 5)
    assert pixels_text(last) == "ADOBE DEFLATE, 1 x 8 bit, strips of 64 rows"


def test_directories_without_end_or_without_pixels_are_an_error(tmp_path: Path) -> None:
    """A damaged chain of directories does not take memory without end."""
    path = tmp_path / "many.tif"
    with tifffile.TiffWriter(path) as tiff:
        write(tiff, patches(4, 8, (64, 64)), "first", compression=None)
    good = path.read_bytes()
    width = struct.pack("<HHII", 256, 4, 1, 64)
    at = good.index(width)
    path.write_bytes(good[: at + 8] + bytes(4) + good[at + 12 :])
    with pytest.raises(SlideError, match="directory 0 has 0x64 pixels"):
        directories_in(path)
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(4097):
            tiff.write(np.zeros((1, 1), np.uint8), photometric="minisblack", metadata=None)
    with pytest.raises(SlideError, match="more than 4096 directories"):
        directories_in(path)


# ---- Real files


@pytest.mark.slides
def test_a_philips_slide_is_the_one_that_openslide_shows(
    slides_folder: Path, read_region: Read
) -> None:
    """Sizes, downsamples, resolution, and the pixels of what was scanned."""
    path = slides_folder / "pancreas-philips-20x.tiff"
    structure = structure_in(path, philips)
    with openslide.OpenSlide(path) as truth, closing(opened(path, philips)) as slide:
        assert tuple(sizes(structure)) == truth.level_dimensions
        assert [v.downsample for v in slide.info.levels] == list(truth.level_downsamples)
        assert slide.info.mpp == pytest.approx(
            tuple(float(truth.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        )
        for level, (width, height) in enumerate(truth.level_dimensions):
            factor = int(truth.level_downsamples[level])
            x, y = width // 3, height // 3
            theirs = truth.read_region((x * factor, y * factor), level, (width // 4, height // 4))
            pixels = np.asarray(theirs)
            seen = pixels[..., 3] == 255
            assert seen.mean() > 0.5
            ours = read_region(slide, level, x, y, width // 4, height // 4)
            np.testing.assert_array_equal(ours[seen], pixels[..., :3][seen])


@pytest.mark.slides
def test_an_scn_slide_is_the_area_that_openslide_shows_on_the_glass(
    slides_folder: Path, read_region: Read
) -> None:
    """The same pixels at the place that OpenSlide gives for the area."""
    path = slides_folder / "gallbladder-leica-20x.scn"
    structure = structure_in(path, leica)
    assert roles(structure) == ["macro", "macro", "level", "level", "level"]
    with openslide.OpenSlide(path) as truth, closing(opened(path, leica)) as slide:
        left, top = (int(truth.properties[f"openslide.bounds-{axis}"]) for axis in "xy")
        assert [v.downsample for v in slide.info.levels] == [1.0, 4.0, 16.0]
        assert slide.info.mpp == pytest.approx(
            tuple(float(truth.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
        )
        theirs = np.asarray(truth.read_region((left + 2000, top + 1500), 0, (900, 700)))
        np.testing.assert_array_equal(read_region(slide, 0, 2000, 1500, 900, 700), theirs[..., :3])
