"""ASAP's XML, in variants from public files and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkdl.annotations.options import ReadingOptions
from chunkdl.errors import AnnotationError
from tests.annotations.drawings import asap, asap_annotation, read_text, square, whole

SQUARE = square(2, 2, 20)[:-1]
GROUPS = (
    '<Group Name="tumor" PartOfGroup="lesion" Color="#fff"><Attributes /></Group>'
    '<Group Name="lesion" PartOfGroup="None" Color="#fff"><Attributes /></Group>'
)


@pytest.mark.parametrize(
    ("annotation", "areas", "told"),
    [
        pytest.param(asap_annotation(SQUARE), [400], "", id="polygon"),
        pytest.param(asap_annotation(SQUARE, kind="Rectangle"), [400], "", id="rectangle"),
        pytest.param(
            asap_annotation([(0, 0), (5, 3)], kind="Rectangle"), [15], "", id="two-corners"
        ),
        pytest.param(asap_annotation(SQUARE, kind="Spline"), [400], "spline", id="spline"),
        pytest.param(asap_annotation(square(2, 2, 20)), [400], "", id="closed"),
        pytest.param(
            asap_annotation(SQUARE).replace('Type="Polygon" ', ""), [400], "", id="no-type"
        ),
        pytest.param(
            asap_annotation(SQUARE).replace('X="2"', 'X=" 2.00000e+00"'), [400], "", id="numbers"
        ),
        pytest.param(
            asap_annotation(SQUARE) + asap_annotation([]), [400], "no coordinates", id="empty"
        ),
        pytest.param(
            asap_annotation(SQUARE) + asap_annotation([(1, 1), (3, 9)], kind="Measurement"),
            [400],
            "measurement",
            id="measurement",
        ),
        pytest.param(
            asap_annotation(SQUARE) + asap_annotation([(1, 1), (3, 9)]),
            [400],
            "fewer than three",
            id="two-points",
        ),
    ],
)
def test_every_kind_of_annotation_is_read(
    annotation: str, areas: list[float], told: str, tmp_path: Path
) -> None:
    """Areas, and one note at most where there is something to tell."""
    found = read_text(tmp_path, "slide.xml", asap(annotation))
    assert found.areas.tolist() == areas
    assert found.classes == ("tumor",)
    assert told in " ".join(found.notes)
    assert bool(found.notes) == bool(told)


def test_dots_and_sets_of_points_are_points(tmp_path: Path) -> None:
    """Each annotation is one feature."""
    text = asap(
        asap_annotation([(3, 4)], kind="Dot"),
        asap_annotation([(1, 2), (5, 6)], kind="PointSet", group="lymphocyte"),
    )
    found = read_text(tmp_path, "slide.xml", text)
    assert (found.points / 64).tolist() == [[3, 4], [1, 2], [5, 6]]
    assert found.feature_points.tolist() == [0, 1, 3]
    assert found.classes == ("lymphocyte", "tumor")


def test_points_are_in_their_order_wherever_they_lie(tmp_path: Path) -> None:
    """`Order` counts; where one has none, the file does."""
    ordered = "".join(
        f'<Coordinate Order="{order}" X="{SQUARE[order][0]}" Y="{SQUARE[order][1]}" />'
        for order in (2, 0, 3, 1)
    )
    annotation = f'<Annotation Type="Polygon"><Coordinates>{ordered}</Coordinates></Annotation>'
    assert read_text(tmp_path, "a.xml", asap(annotation)).areas.tolist() == [400]
    as_listed = "".join(f'<Coordinate X="{x}" Y="{y}" />' for x, y in SQUARE)
    annotation = f"<Annotation><Coordinates>{as_listed}</Coordinates></Annotation>"
    found = read_text(tmp_path, "b.xml", asap(annotation))
    assert found.areas.tolist() == [400]
    assert found.classes == ("unclassified",)


def test_groups_lie_in_groups(tmp_path: Path) -> None:
    """An annotation has the class of its own group, or of the topmost one."""
    text = asap(asap_annotation(SQUARE), asap_annotation(SQUARE, "None"), groups=GROUPS)
    assert read_text(tmp_path, "a.xml", text).classes == ("tumor", "unclassified")
    found = read_text(tmp_path, "a.xml", text, options=ReadingOptions(top_groups=True))
    assert found.classes == ("lesion", "unclassified")
    circle = GROUPS.replace('PartOfGroup="None"', 'PartOfGroup="tumor"')
    with pytest.raises(AnnotationError, match="belongs to itself"):
        read_text(
            tmp_path,
            "b.xml",
            asap(asap_annotation(SQUARE), groups=circle),
            options=ReadingOptions(top_groups=True),
        )


def test_polygons_of_a_hole_group_are_cut_out_of_all_that_hold_them(tmp_path: Path) -> None:
    """Of every class, before or behind them in the file; one that lies nowhere is told."""
    text = asap(
        asap_annotation(square(20, 20, 10), "Hole"),
        asap_annotation(square(0, 0, 60), "tissue"),
        asap_annotation(square(10, 10, 30), "tumor"),
        asap_annotation(square(22, 22, 2), "island"),
        asap_annotation(square(62, 62, 2), "hole", name="lost"),
    )
    found = read_text(tmp_path, "a.xml", text)
    assert found.classes == ("island", "tissue", "tumor")
    assert found.areas.tolist() == [3500, 800, 4]
    assert found.numbers.tolist() == [1, 2, 3]
    assert found.notes == ("feature 4 ('lost'): it is a hole and lies in no polygon; left out",)
    raster = whole(found)
    assert [raster[y, y] for y in (5, 15, 21, 23, 50, 63)] == [2, 3, 0, 1, 2, 0]
    as_class = read_text(tmp_path, "a.xml", text, options=ReadingOptions(hole_groups=()))
    assert "Hole" in as_class.classes


def test_a_hole_that_reaches_out_takes_away_only_what_is_inside(tmp_path: Path) -> None:
    """Its part outside is not a part of the polygon."""
    text = asap(
        asap_annotation(square(10, 10, 40), "tissue"), asap_annotation(square(40, 20, 15), "hole")
    )
    found = read_text(tmp_path, "a.xml", text)
    assert found.areas.tolist() == [1600 - 150]
    assert whole(found)[25, 52] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (asap(asap_annotation(SQUARE).replace('X="2"', 'X="2,5"', 1)), "not a comma"),
        (asap(asap_annotation(SQUARE).replace('X="2"', "", 1)), "has no numbers X and Y"),
        (asap(asap_annotation(SQUARE, kind="Blob")), "'Blob' is not known"),
        (asap(asap_annotation(SQUARE))[:-30], "the XML cannot be read"),
        ("<Annotations MicronsPerPixel='0.5'></Annotations>", "ImageScope"),
        ("<svg></svg>", "begins with 'svg'"),
        (
            "<ASAP_Annotations><Coordinate X='1' Y='2'/></ASAP_Annotations>",
            "belongs to no annotation",
        ),
    ],
)
def test_what_is_no_file_of_asap_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """With the file, and the annotation where it is about one."""
    with pytest.raises(AnnotationError, match=said) as caught:
        read_text(tmp_path, "slide.xml", text)
    assert caught.value.file == str(tmp_path / "slide.xml")


def test_texts_of_other_encodings_are_read(tmp_path: Path) -> None:
    """As XML says which it is."""
    text = asap(asap_annotation(SQUARE, "Müller"))
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        named = text.replace("?>", f' encoding="{encoding}"?>', 1)
        found = read_text(tmp_path, "a.xml", named.encode(encoding))
        assert found.classes == ("Müller",)
