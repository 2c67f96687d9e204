"""Slideflow's tables, COCO, and the JSON of HistomicsTK."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.annotations.options import ReadingOptions
from chunkdl.errors import AnnotationError
from tests.annotations.drawings import Ring, read_text, square, whole

# ---- Tables of slideflow.


def table(*rois: tuple[str, str | None, Ring], header: str = "roi_name,x_base,y_base,label") -> str:
    """A table with a label column."""
    rows = [f"{name},{x},{y},{label or ''}" for name, label, ring in rois for x, y in ring]
    return "\n".join([header, *rows]) + "\n"


def test_a_table_has_a_region_for_each_name(tmp_path: Path) -> None:
    """In the order of their first rows, with the label as class."""
    text = table(("b", "tumor", square(0, 0, 5)[:-1]), ("a", None, square(10, 0, 4)))
    found = read_text(tmp_path, "slide.csv", text)
    assert found.classes == ("tumor", "unclassified")
    assert found.areas.tolist() == [25, 16]
    assert found.class_of.tolist() == [0, 1]


def test_tables_of_other_programs_are_read(tmp_path: Path) -> None:
    """With more columns in any order, a mark of the encoding, empty lines and other line ends."""
    text = "\ufeff,Label,ROI_name,x_base,y_base\r\n" + "".join(
        f"{row},nan,a,{x},{y}\r\n\r\n" for row, (x, y) in enumerate(square(0, 0, 5))
    )
    found = read_text(tmp_path, "slide.csv", text.encode())
    assert found.areas.tolist() == [25]
    assert found.classes == ("unclassified",)


def test_a_region_inside_another_is_a_hole_of_it(tmp_path: Path) -> None:
    """As in slideflow; what is inside the hole is a region again, and another label is no hole."""
    text = table(
        ("island", "tumor", square(20, 20, 5)),
        ("hole", "tumor", square(10, 10, 30)),
        ("whole", "tumor", square(0, 0, 60)),
        ("other", "stroma", square(50, 50, 5)),
    )
    found = read_text(tmp_path, "slide.csv", text)
    assert found.numbers.tolist() == [0, 2, 3]
    assert found.areas.tolist() == [25, 2700, 25]
    raster = whole(found)
    assert [raster[y, y] for y in (5, 15, 22, 30, 45, 52)] == [2, 0, 2, 0, 2, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,x,y\na,1,2\n", "the format is not known"),
        ("roi_name,x_base,y_base\na,1\n", "line 2"),
        ("roi_name,x_base,y_base\na,1,two\n", "has no name, x and y"),
        (table(("a", "b", [(1, 2)]), ("a", "c", [(1, 2)])), "line 3 gives it the label 'c'"),
    ],
)
def test_wrong_tables_are_refused_with_the_line(text: str, said: str, tmp_path: Path) -> None:
    """And the file."""
    with pytest.raises(AnnotationError, match=said) as caught:
        read_text(tmp_path, "slide.csv", text)
    assert caught.value.file == str(tmp_path / "slide.csv")


# ---- COCO.

CATEGORIES = [{"id": 1, "name": "tumor"}, {"id": 2, "name": "stroma"}]


def coco(*objects: dict[str, Any], images: Any = ()) -> dict[str, Any]:
    """A file of COCO."""
    return {
        "info": {"year": 2020},
        "images": list(images),
        "categories": CATEGORIES,
        "annotations": list(objects),
    }


def flat(ring: Ring) -> list[float]:
    """As COCO lists the places of a ring."""
    return [float(number) for place in ring for number in place]


def test_objects_have_polygons_or_boxes(tmp_path: Path) -> None:
    """Several polygons are one object; where there are none the box is it."""
    found = read_text(
        tmp_path,
        "a.json",
        coco(
            {"id": 7, "category_id": 1, "segmentation": [flat(square(0, 0, 5)[:-1])]},
            {
                "id": 8,
                "category_id": 2,
                "segmentation": [flat(square(9, 0, 2)), flat(square(20, 0, 3))],
            },
            {"id": 9, "category_id": 2, "bbox": [30, 1, 4, 6], "segmentation": []},
            {"id": 10, "category_id": 2},
        ),
    )
    assert found.classes == ("stroma", "tumor")
    assert found.areas.tolist() == [25, 13, 24]
    assert (found.boxes[2] / 64).tolist() == [30, 1, 34, 7]
    assert found.notes == ("feature 3 ('10'): it has neither polygon nor box; left out",)


def test_the_image_of_the_slide_is_taken_and_brought_to_its_size(tmp_path: Path) -> None:
    """By name where there are several; coordinates of a smaller image are scaled."""
    images = [
        {"id": 1, "file_name": "thumbs/one.png", "width": 100, "height": 50},
        {"id": 2, "file_name": "two.svs", "width": 100, "height": 50},
    ]
    objects = [
        {"id": image, "image_id": image, "category_id": 1, "bbox": [10, 10, image, 1]}
        for image in (1, 2)
    ]
    content = coco(*objects, images=images)
    found = read_text(tmp_path, "a.json", content, size=(1000, 500), slide="/data/two.ome.tif")
    assert (found.boxes / 64).tolist() == [[100, 100, 120, 110]]
    with pytest.raises(AnnotationError, match=r"2 images, and none has the name .* 'three'"):
        read_text(tmp_path, "a.json", content, size=(1000, 500), slide="three.svs")
    with pytest.raises(AnnotationError, match="aspect ratios differ"):
        read_text(tmp_path, "a.json", content, size=(1000, 800), slide="one.svs")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"id": 3, "segmentation": {"counts": [1, 2], "size": [3, 4]}}, "run-length mask"),
        ({"id": 3, "segmentation": {"counts": "abc", "size": [3, 4]}}, "run-length mask"),
        ({"id": 3, "category_id": 9}, "category 9 is not in the file"),
        ({"id": 3, "segmentation": [[1, 2, 3]]}, "an x without a y"),
        ({"id": 3, "bbox": [1, 2]}, "2 numbers"),
        ({"id": 3, "segmentation": "abc"}, "cannot be read as COCO"),
    ],
)
def test_wrong_objects_are_refused(item: dict[str, Any], said: str, tmp_path: Path) -> None:
    """With number and id."""
    with pytest.raises(AnnotationError, match=said) as caught:
        read_text(tmp_path, "a.json", coco(item))
    assert caught.value.feature.startswith("0")


# ---- HistomicsTK.


def document(*elements: dict[str, Any], name: str = "by hand") -> dict[str, Any]:
    """An annotation of the archive."""
    return {"name": name, "description": "", "elements": list(elements)}


def test_every_element_that_has_an_inside_is_read(tmp_path: Path) -> None:
    """Closed lines with holes, turned rectangles, ellipses and circles; points are points."""
    outer, hole = ([[*place, 0] for place in square(*at)] for at in ((0, 0, 20), (5, 5, 10)))
    found = read_text(
        tmp_path,
        "a.json",
        document(
            {"type": "polyline", "points": outer, "holes": [hole], "closed": True},
            {"type": "rectangle", "center": [50, 50, 0], "width": 20, "height": 10, "rotation": 0},
            {
                "type": "rectangle",
                "center": [50, 50, 0],
                "width": 20,
                "height": 10,
                "rotation": math.pi / 2,
            },
            {"type": "ellipse", "center": [50, 50, 0], "width": 200, "height": 100, "rotation": 0},
            {"type": "circle", "center": [500, 500, 0], "radius": 300},
            {"type": "point", "center": [3, 4, 0]},
            {"type": "polyline", "points": outer, "closed": False},
            {"type": "arrow", "points": outer},
            {"type": "polyline", "points": [], "holes": [hole], "closed": True},
        ),
    )
    assert found.areas[:3].tolist() == [300, 200, 200]
    assert (found.boxes[1:3] / 64).tolist() == [[40, 45, 60, 55], [45, 40, 55, 60]]
    assert found.areas[3] == pytest.approx(math.pi * 100 * 50, rel=2e-3)
    assert found.areas[4] == pytest.approx(math.pi * 300**2, rel=5e-4)
    np.testing.assert_allclose(found.centroids[4], [500, 500], atol=0.01)
    assert (found.points / 64).tolist() == [[3, 4]]
    assert found.notes == (
        "feature 6: it is a line and has no inside; left out",
        "feature 7: it is of the type arrow and no region; left out",
        "feature 8: a ring has fewer than three different points; the ring was left out",
        "feature 8: nothing of it has an inside; left out",
    )


def test_shapes_are_turned_from_x_towards_y(tmp_path: Path) -> None:
    """By radians, around their centre."""
    turned = {"center": [50, 60, 0], "width": 40, "height": 10, "rotation": math.pi / 6}
    found = read_text(
        tmp_path, "a.json", document({"type": "rectangle", **turned}, {"type": "ellipse", **turned})
    )
    corner = (50 + 20 * math.cos(math.pi / 6), 60 + 20 * math.sin(math.pi / 6))
    ring = found.rings_of(0)[0]
    middles = (ring + np.roll(ring, 1, axis=0)) / 2
    assert np.abs(middles - corner).max(axis=1).min() < 0.02
    assert np.abs(found.rings_of(1)[0] - corner).max(axis=1).min() < 0.02


def test_the_class_is_the_group_then_the_label_then_the_document(tmp_path: Path) -> None:
    """In a list of records of the archive, or in one."""
    ring = square(0, 0, 5)
    line: dict[str, Any] = {"type": "polyline", "points": ring, "closed": True}
    content = [
        {
            "_id": "1",
            "annotation": document(
                {**line, "group": "tumor", "label": {"value": "a cell"}},
                {**line, "group": "default", "label": {"value": "stroma"}},
                line,
            ),
        },
        {"annotation": document({**line, "label": {"value": "necrosis"}})},
    ]
    found = read_text(tmp_path, "a.json", content)
    assert found.classes == ("by hand", "necrosis", "stroma", "tumor")
    assert found.class_of.tolist() == [3, 2, 0, 1]
    assert found.numbers.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (document({"type": "blob"}), "'blob' is not known"),
        (document({"type": "circle", "center": [1, 2, 3]}), "no radius"),
        (document({"type": "ellipse", "center": [1, 2, 3], "width": 3}), "no width and height"),
        (document({"type": "point", "center": [1]}), "no x and y"),
        ([{"annotation": {"name": "none"}}], "it has no elements"),
    ],
)
def test_wrong_documents_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    """With file and element."""
    with pytest.raises(AnnotationError, match=said):
        read_text(tmp_path, "a.json", content)


def test_the_format_can_be_given(tmp_path: Path) -> None:
    """Then nothing else is tried."""
    with pytest.raises(AnnotationError, match="no elements"):
        read_text(tmp_path, "a.json", [{}], options=ReadingOptions(format="histomics"))
    with pytest.raises(AnnotationError, match="it is no picture"):
        read_text(tmp_path, "a.json", [{}], options=ReadingOptions(format="mask"))
