"""What other programs have outlined, as the tissue of a slide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chunkdl import Dataset, LightDL
from chunkdl.engine.work.given_masks import given_mask
from chunkdl.errors import SlideError
from chunkdl.slides.slide import Level, SlideInfo
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box, geojson_of

WIDTH, HEIGHT, SIDE = 1600, 1200, 64
INFO = SlideInfo("a.svs", "memory", (Level(WIDTH, HEIGHT, 1.0, 256, 256),), None)
STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": SIDE,
    "bigchunk_size": 512,
    "num_bigchunks": 16,
    "smallchunks_per_bigchunk": 8,
    "num_loaders": 1,
    "num_collectors": 1,
    "tissue_threshold": 1.0,
}


def trident(x: int, y: int, width: int, height: int, hole: int = 0) -> bytes:
    """As TRIDENT writes its contours: a collection of polygons with a tissue_id, and holes."""
    rings = [[[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]]
    if hole:
        rings.append(
            [
                [x + dx, y + dy]
                for dx, dy in ((50, 50), (50, hole), (hole, hole), (hole, 50), (50, 50))
            ]
        )
    feature = {
        "type": "Feature",
        "properties": {"tissue_id": 0},
        "geometry": {"type": "Polygon", "coordinates": rings},
    }
    return json.dumps(
        {
            "type": "FeatureCollection",
            "name": "slide",
            "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
            "features": [feature],
        }
    ).encode()


def test_what_is_outlined_is_tissue_whatever_its_class(tmp_path: Path) -> None:
    """To the pixel, where the mask has a cell for each; a hole is none."""
    (tmp_path / "t.geojson").write_bytes(trident(200, 300, 800, 600, hole=250))
    mask = given_mask(tmp_path / "t.geojson", INFO, tmp_path)
    expected = np.zeros((HEIGHT, WIDTH), np.bool_)
    expected[300:900, 200:1000] = True
    expected[350:550, 250:450] = False
    assert np.array_equal(mask.cells, expected)
    two = geojson_of(box(0, 0, 100, 50, "Tissue"), box(200, 100, 40, 40, "Tumor"))
    (tmp_path / "q.json").write_bytes(two)
    mask = given_mask(str(tmp_path / "q.json"), INFO, tmp_path)
    assert mask.cells.sum() == 100 * 50 + 40 * 40


def test_large_slides_have_a_mask_of_a_few_million_cells(tmp_path: Path) -> None:
    """However many pixels they have; the share is that of the outline."""
    info = SlideInfo("a.svs", "memory", (Level(160_000, 120_000, 1.0, 256, 256),), None)
    (tmp_path / "t.geojson").write_bytes(trident(20_000, 30_000, 80_000, 60_000))
    mask = given_mask(tmp_path / "t.geojson", info, tmp_path)
    assert mask.cells.shape == (3072, 4096)
    assert mask.cells.mean() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"type": "FeatureCollection", "features": []}', "has no outline with an area"),
        (b'{"type": "FeatureCollection", ', r"tissue mask .*t\.geojson"),
    ],
)
def test_files_without_an_outline_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    """A slide without tissue is left out by whoever makes the list, not by chance."""
    (tmp_path / "t.geojson").write_bytes(text)
    with pytest.raises(SlideError, match=message):
        given_mask(tmp_path / "t.geojson", INFO, tmp_path)


def test_a_stream_draws_from_the_outlines_of_its_manifest(tmp_path: Path) -> None:
    """With an annotation of another file beside it."""
    write_coordinate_slide(
        str(tmp_path / "s.tif"), WIDTH, HEIGHT, slide_id=1, tile=128, levels=(1,)
    )
    (tmp_path / "contours").mkdir()
    (tmp_path / "contours" / "s.geojson").write_bytes(trident(400, 300, 600, 500))
    (tmp_path / "tumor.geojson").write_bytes(geojson_of(box(700, 0, 600, HEIGHT, "tumor")))
    (tmp_path / "list.csv").write_text(
        "patient,slide,tissue_mask,annotations\np,s.tif,contours/s.geojson,tumor.geojson\n"
    )
    dataset = Dataset.from_csv(tmp_path / "list.csv")
    roi = {"where": "inside", "share": 1.0}
    with LightDL(dataset, **STREAM, roi=roi) as loader:
        for _ in range(5):
            batch = loader.next_batch(60)
            # An eighth of a SmallChunk is decided at once.
            assert batch["x"].min() >= 700 - 4
            assert batch["x"].max() <= 1000 - SIDE + 4
            assert 300 - 4 <= batch["y"].min() <= batch["y"].max() <= 800 - SIDE + 4


def test_the_classes_of_grandqc_say_what_is_tissue(tmp_path: Path) -> None:
    """Read as annotations; folds, pen and blur are left alone."""
    write_coordinate_slide(
        str(tmp_path / "s.tif"), WIDTH, HEIGHT, slide_id=1, tile=128, levels=(1,)
    )
    found = np.full((HEIGHT // 8, WIDTH // 8), 7, np.uint8)
    found[20:130, 30:150] = 1
    found[20:130, 80:100] = 2
    (tmp_path / "qc").mkdir()
    Image.fromarray(found).save(tmp_path / "qc" / "s.png")
    kinds = ("tissue", "fold", "dark spot", "pen", "bubble", "blur", "background")
    with LightDL(
        Dataset.from_slides(tmp_path / "s.tif"),
        **STREAM,
        annotations=tmp_path / "qc",
        annotation_reading={"format": "mask", "mask_classes": dict(enumerate(kinds, 1))},
        roi={"where": "inside", "classes": ["tissue"], "share": 1.0},
        tissue="none",
    ) as loader:
        for _ in range(5):
            batch = loader.next_batch(60)
            right = batch["x"] + SIDE
            assert ((right <= 640 + 4) | (batch["x"] >= 800 - 4)).all()
            assert batch["x"].min() >= 240 - 4
            assert right.max() <= 1200 + 4
            assert set(batch["region"].tolist()) == {loader.tables["region"].index("tissue")}
