"""GeoJSON as QuPath and programs around it have written it, in variants from public reports."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.annotations.options import ReadingOptions
from chunkdl.errors import AnnotationError, ConfigError
from tests.annotations.drawings import collection, drawn, feature, read_text, square, whole

TUMOR = feature(square(2, 2, 20), name="tumor")
STROMA = feature(square(30, 2, 20), name="stroma")
HOLED = feature(square(0, 0, 40), square(10, 10, 20), name="tumor")


def geometry(kind: str, coordinates: Any, **more: Any) -> dict[str, Any]:
    """A feature of any geometry."""
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, **more}


@pytest.mark.parametrize(
    ("content", "classes", "areas"),
    [
        pytest.param(collection(TUMOR, STROMA), ("stroma", "tumor"), [400, 400], id="collection"),
        pytest.param([TUMOR, STROMA], ("stroma", "tumor"), [400, 400], id="bare-list-of-0.2"),
        pytest.param(TUMOR, ("tumor",), [400], id="single-feature"),
        pytest.param(TUMOR["geometry"], ("unclassified",), [400], id="bare-geometry"),
        pytest.param(collection(HOLED), ("tumor",), [1200], id="hole"),
        pytest.param(
            collection(geometry("MultiPolygon", [[square(0, 0, 5)], [square(9, 9, 5)]])),
            ("unclassified",),
            [50],
            id="multipolygon",
        ),
        pytest.param(
            collection(geometry("MultiPolygon", [[square(0, 0, 5)]])),
            ("unclassified",),
            [25],
            id="multipolygon-of-one",
        ),
        pytest.param(
            collection(
                {
                    "type": "Feature",
                    "geometry": {
                        "type": "GeometryCollection",
                        "geometries": [
                            {"type": "Polygon", "coordinates": [square(0, 0, 5)]},
                            {"type": "Point", "coordinates": [3, 4]},
                        ],
                    },
                    "properties": {},
                }
            ),
            ("unclassified",),
            [25],
            id="collection-of-geometries",
        ),
        pytest.param(
            [{**TUMOR, "properties": {"classification": "tumor"}}], ("tumor",), [400], id="name"
        ),
        pytest.param(
            [{**TUMOR, "properties": {"classification": {"names": ["Tumor", "Positive"]}}}],
            ("Tumor: Positive",),
            [400],
            id="derived-class",
        ),
        pytest.param(
            [{**TUMOR, "properties": {"classification": {"name": "a", "colorRGB": -3670016}}}],
            ("a",),
            [400],
            id="colour-of-0.1",
        ),
        pytest.param(
            [{**TUMOR, "properties": {"classification": None}}, {**TUMOR, "properties": None}],
            ("unclassified",),
            [400, 400],
            id="no-class",
        ),
        pytest.param(
            [{"type": "Feature", "geometry": TUMOR["geometry"]}],
            ("unclassified",),
            [400],
            id="no-properties",
        ),
        pytest.param(
            collection(geometry("Polygon", [[[*at, 0.0] for at in square(0, 0, 5)]])),
            ("unclassified",),
            [25],
            id="with-height",
        ),
        pytest.param({**collection(), "bbox": [0, 0, 1, 1]}, (), [], id="nothing"),
    ],
)
def test_every_form_of_a_file_is_read(
    content: Any, classes: tuple[str, ...], areas: list[float], tmp_path: Path
) -> None:
    """Classes, features and areas; nothing has to be told of any of them."""
    found = read_text(tmp_path, "slide.geojson", content)
    assert found.classes == classes
    assert found.areas.tolist() == areas
    assert found.notes == ()


def test_holes_are_no_part_of_a_feature() -> None:
    """An inner ring is nothing, and a feature inside it is one."""
    raster = whole(drawn(HOLED, feature(square(15, 15, 5), name="stroma")))
    assert (raster == 2).sum() == 1200
    assert (raster == 1).sum() == 25


def test_points_keep_their_places() -> None:
    """Of Point and MultiPoint; with their class, and without area."""
    found = drawn(
        geometry("Point", [3.5, 4.25], properties={"classification": {"name": "mitosis"}}),
        geometry("MultiPoint", [[1, 2], [3, 5]]),
    )
    assert (found.points / 64).tolist() == [[3.5, 4.25], [1, 2], [3, 5]]
    assert found.feature_points.tolist() == [0, 1, 3]
    assert found.centroids.tolist() == [[3.5, 4.25], [2, 3.5]]
    assert found.areas.tolist() == [0, 0]
    assert found.boxes.tolist() == [[224, 272, 224, 272], [64, 128, 192, 320]]


def test_cells_have_an_outline_and_that_of_their_nucleus(tmp_path: Path) -> None:
    """Which is read is an option; a cell without a nucleus is told."""
    cell = feature(square(0, 0, 10), name="lymphocyte", kind="cell")
    nucleus = {**cell, "nucleusGeometry": {"type": "Polygon", "coordinates": [square(2, 2, 4)]}}
    content = collection(nucleus, cell)
    found = read_text(tmp_path, "a.geojson", content)
    assert found.areas.tolist() == [100, 100]
    assert found.detected.all()
    found = read_text(tmp_path, "a.geojson", content, options=ReadingOptions(cells="nucleus"))
    assert found.areas.tolist() == [16]
    assert found.numbers.tolist() == [0]
    assert "feature 1 ('an id'): the cell has no outline of its nucleus" in found.notes[0]


def test_old_and_new_names_of_object_types_are_known() -> None:
    """QuPath has written `object_type` and `objectType`, and words in small and large letters."""
    kinds = [{"object_type": "detection"}, {"objectType": "Cell"}, {"objectType": "annotation"}]
    found = drawn(*({**TUMOR, "properties": kind} for kind in kinds))
    assert found.detected.tolist() == [True, True, False]


def test_compressed_files_and_files_with_nan_in_their_measurements_are_read(
    tmp_path: Path,
) -> None:
    """QuPath and Python write NaN, which JSON does not have."""
    text = json.dumps(collection({**TUMOR, "properties": {"measurements": {"a": float("nan")}}}))
    assert "NaN" in text
    (tmp_path / "a.geojson.gz").write_bytes(gzip.compress(text.encode()))
    packed = read_text(tmp_path, "a.geojson.gz", gzip.compress(text.encode()))
    assert packed.areas.tolist() == [400]
    marked = read_text(tmp_path, "b.geojson", b"\xef\xbb\xbf" + text.encode())
    assert marked.digest() == packed.digest()


def test_names_with_the_words_of_numbers_stay_as_they_are(tmp_path: Path) -> None:
    """A class may be called NaN."""
    text = json.dumps(collection(feature(square(0, 0, 5), name='the "NaN" class')))
    found = read_text(tmp_path, "a.json", text.replace("5.0", "5.0 ").replace("0.0", "0.0"))
    assert found.classes == ('the "NaN" class',)


def test_an_offset_moves_everything(tmp_path: Path) -> None:
    """QuPath counts from the corner of the scanned part of a slide that states one."""
    point = geometry("Point", [3, 4])
    found = read_text(tmp_path, "a.json", [TUMOR, point], offset=(1000, 2000.5), size=(2000, 3000))
    assert (found.boxes / 64).tolist() == [[1002, 2002.5, 1022, 2022.5], [1003, 2004.5] * 2]
    assert found.areas.tolist() == [400, 0]
    with pytest.raises(ConfigError, match="offset"):
        read_text(tmp_path, "a.json", [TUMOR], offset=(float("nan"), 0))


def test_what_has_no_inside_is_left_out_and_told() -> None:
    """Lines, empty geometries and no geometry; what else is in the file is read."""
    found = drawn(
        geometry("LineString", [[0, 0], [5, 5]]),
        geometry("MultiLineString", [[[0, 0], [5, 5]]]),
        geometry("Polygon", []),
        geometry("Point", []),
        {"type": "Feature", "geometry": None},
        TUMOR,
    )
    assert found.numbers.tolist() == [5]
    assert found.notes == (
        "features 0, 1: it is a line and has no inside; left out",
        "features 2, 3: its geometry is empty; left out",
        "feature 4: it has no geometry; left out",
    )


def test_another_plane_is_told() -> None:
    """A stack of images has annotations for each."""
    found = drawn(
        {**TUMOR, "geometry": {**TUMOR["geometry"], "plane": {"c": -1, "z": 3, "t": 0}}},
        {**TUMOR, "geometry": {**TUMOR["geometry"], "plane": {"c": -1, "z": 0, "t": 0}}},
    )
    assert len(found) == 2
    assert found.notes == (
        "feature 0 ('an id'): it was drawn in another plane of the image, and is read as all "
        "others",
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "Topology"}, "neither GeoJSON"),
        ({"type": "Feature", "geometry": {"type": "Circle", "coordinates": [1, 2]}}, "'Circle'"),
        ([TUMOR, {"type": "Polygon"}], "feature 1"),
        (geometry("Polygon", [[[1], [2], [3]]]), "has no y"),
        (geometry("Polygon", [[["1", "2"]]]), "got `str`"),
        (geometry("Polygon", [1, 2]), "cannot be read as GeoJSON"),
        ([{**TUMOR, "properties": {"classification": 3}}], "classification is 3"),
        ('{"type": "FeatureCollection", "features": [', "no JSON"),
        ("{'type': 'FeatureCollection'}", "no JSON"),
    ],
)
def test_what_is_no_geojson_is_refused_with_file_and_feature(
    content: Any, said: str, tmp_path: Path
) -> None:
    """And with what is wrong."""
    with pytest.raises(AnnotationError, match=said) as caught:
        read_text(tmp_path, "slide.geojson", content)
    assert caught.value.file == str(tmp_path / "slide.geojson")
    assert str(tmp_path / "slide.geojson") in str(caught.value)


def test_names_are_in_errors_and_notes() -> None:
    """The feature's own, else its id, else only its number."""
    bad = {**TUMOR, "geometry": {"type": "Circle"}, "properties": {"name": "my tumour"}}
    with pytest.raises(AnnotationError, match=r"feature 1 \('my tumour'\)\]") as caught:
        drawn(TUMOR, bad)
    assert caught.value.feature == "1 ('my tumour')"


def test_areas_and_centroids_are_those_of_the_shapes() -> None:
    """With holes, whichever way round rings were drawn."""
    turned = feature(square(0, 0, 40), square(10, 10, 20)[::-1])
    back = feature(square(0, 0, 40)[::-1], square(10, 10, 20))
    lopsided = feature(square(0, 0, 40), square(20, 0.5, 10), name="a")
    found = drawn(turned, back, lopsided)
    assert found.areas.tolist() == [1200, 1200, 1500]
    np.testing.assert_allclose(found.centroids[:2], [[20, 20], [20, 20]])
    x = (1600 * 20 - 100 * 25) / 1500
    y = (1600 * 20 - 100 * 5.5) / 1500
    np.testing.assert_allclose(found.centroids[2], [x, y])
