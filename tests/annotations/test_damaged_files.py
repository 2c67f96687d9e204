"""Whatever a file has become, reading it gives sound annotations or an error that says so."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chunkdl.annotations.json_text import strict_json
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.reading import read_annotations
from chunkdl.errors import AnnotationError
from tests.annotations.drawings import asap, asap_annotation, collection, feature, square

TRIALS = 1500
WORDS = (
    *(b"null", b"NaN", b"-Infinity", b"1e400", b'"x"', b"[]", b"{}", b"true", b"-1", b"1e18"),
    *(b"<!DOCTYPE a>", b'"', b",", b"\\", b"\x00", b"\xff", b"[[", b"]]", b"0", b'""'),
)


def picture() -> bytes:
    """A mask of 24 x 16 pixels."""
    mask = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) % 3, np.ones((8, 8), np.uint8))
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    return out.getvalue()


CELL = feature(square(0, 0, 5), name="c", kind="cell")
FILES = {
    "geojson": json.dumps(
        collection(
            feature(square(0, 0, 9), square(1, 1, 2), name="t"),
            {
                "type": "Feature",
                "geometry": {"type": "MultiPolygon", "coordinates": [[square(0, 0, 5)]]},
            },
            {
                "type": "Feature",
                "geometry": {
                    "type": "GeometryCollection",
                    "geometries": [{"type": "Point", "coordinates": [1, 2]}],
                },
            },
            {**CELL, "nucleusGeometry": {"type": "Polygon", "coordinates": [square(1, 1, 2)]}},
        )
    ).encode(),
    "asap": asap(
        asap_annotation(square(0, 0, 9)),
        asap_annotation(square(1, 1, 2), "hole"),
        asap_annotation([(1, 2)], kind="Dot"),
        groups='<Group Name="tumor" PartOfGroup="None"/>',
    ).encode(),
    "slideflow": (
        "roi_name,x_base,y_base,label\n"
        + "".join(f"a,{x},{y},t\n" for x, y in square(0, 0, 9))
        + "".join(f"b,{x},{y},t\n" for x, y in square(2, 2, 3))
    ).encode(),
    "coco": json.dumps(
        {
            "images": [{"id": 1, "file_name": "a.svs", "width": 24, "height": 16}],
            "categories": [{"id": 1, "name": "t"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]},
                {"id": 2, "bbox": [1, 2, 3, 4]},
            ],
        }
    ).encode(),
    "histomics": json.dumps(
        {
            "name": "x",
            "elements": [
                {
                    "type": "polyline",
                    "points": square(0, 0, 9),
                    "closed": True,
                    "holes": [square(2, 2, 3)],
                    "label": {"value": "a"},
                },
                {"type": "ellipse", "center": [5, 5, 0], "width": 3, "height": 4, "rotation": 1},
                {"type": "circle", "center": [5, 5, 0], "radius": 3},
                {"type": "point", "center": [1, 2, 0]},
            ],
        }
    ).encode(),
    "mask": picture(),
}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """With bytes changed, taken out, put in, and copied."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place, kind = rng.randrange(len(found)), rng.random()
        if kind < 0.3:
            found[place] = rng.randrange(256)
        elif kind < 0.5:
            del found[place : place + rng.randint(1, 20)]
        elif kind < 0.8:
            word = rng.choice(WORDS)
            found[place : place + rng.choice((0, 1, 3, len(word)))] = word
        else:
            other = rng.randrange(len(found))
            found[place:place] = found[other : other + rng.randint(1, 60)]
    return bytes(found)


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    """Never another error; what is read can be rasterised, and lies where boxes say."""
    rng = random.Random(kind)
    options = ReadingOptions(mask_classes={1: "a", 2: "b"})
    path = tmp_path / "a.file"
    path.write_bytes(FILES[kind])
    assert len(read_annotations(path, options, size=(24, 16)))
    read = 0
    refused: list[str] = []
    for _ in range(TRIALS):
        path.write_bytes(damaged(FILES[kind], rng))
        try:
            found = read_annotations(path, options, size=(24, 16))
        except AnnotationError as error:
            refused.append(error.file)
            continue
        read += 1
        assert (found.areas >= 0).all()
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
        raster = rasterise(found, downsample=1, origin=(-2, -2), size=(30, 30))
        assert raster.max() <= len(found.classes)
    assert read >= 10
    assert set(refused) == {str(path)}


JSON = st.recursive(
    st.none() | st.floats() | st.integers() | st.text('Na"\\ ,Infity-') | st.just("-Infinity"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('N"\\'), inner, max_size=3),
)


@given(JSON)
def test_words_that_are_no_numbers_become_null_and_texts_stay(value: object) -> None:
    """As if Python had read it and said None for them."""
    text = strict_json(json.dumps(value).encode())

    def refuse(word: str) -> object:
        raise AssertionError(word)

    expected = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert json.loads(text, parse_constant=refuse) == expected
