"""Rows that have the objects in them: each once, at its place, whoever makes the rows."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL, connect
from chunkdl.errors import ConfigError
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box
from tests.service.conftest import arguments

WIDTH, HEIGHT, SIDE = 1400, 1100, 64
STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": SIDE,
    "bigchunk_size": 512,
    "num_bigchunks": 16,
    "smallchunks_per_bigchunk": 8,
    "downsample": 2,
    "tissue": "none",
    "num_loaders": 1,
    "num_collectors": 1,
    "seed": 4,
    "arrays": "numpy",
}


@pytest.fixture(scope="module")
def cells() -> dict[int, list[tuple[float, float, str]]]:
    """Of each slide, in the order of its file; the second has none."""
    rng = np.random.default_rng(6)
    found: dict[int, list[tuple[float, float, str]]] = {}
    for number, count in ((0, 900), (2, 300)):
        places = rng.uniform((0, 0), (WIDTH, HEIGHT), (count, 2))
        # In the steps of files that are kept.
        places = np.floor(places * 64) / 64
        names = rng.choice(["immune", "tumor"], count)
        found[number] = [
            (x, y, name) for (x, y), name in zip(places.tolist(), names.tolist(), strict=True)
        ]
    return found


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, cells: dict[int, list[tuple[float, float, str]]]
) -> Path:
    """Three slides; cells as QuPath's detections, and regions that are none."""
    folder = tmp_path_factory.mktemp("cells")
    for number in range(3):
        path = str(folder / f"slide-{number}.tif")
        write_coordinate_slide(path, WIDTH, HEIGHT, slide_id=number, tile=128, levels=(1, 2))
        features = [box(300, 300, 400, 400, "area")]
        for x, y, name in cells.get(number, []):
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Point", "coordinates": [x, y]},
                    "properties": {"objectType": "detection", "classification": {"name": name}},
                }
            )
        (folder / f"slide-{number}.geojson").write_text(json.dumps(features))
    return folder


def test_every_row_has_the_cells_whose_centre_lies_in_it(
    folder: Path, cells: dict[int, list[tuple[float, float, str]]]
) -> None:
    """In pixels of the row, with their class; also with two of each worker."""
    stream = {**STREAM, "annotations": folder, "cells": "detections"}
    wide = {**stream, "num_loaders": 2, "num_collectors": 2}
    most = 0
    with (
        LightDL(Dataset.from_slides(folder), **stream) as loader,
        LightDL(Dataset.from_slides(folder), **wide) as others,
    ):
        assert loader.tables["region"] == ["area", "immune", "tumor"]
        names = loader.tables["region"]
        for _ in range(25):
            batch, same = loader.next_batch(60), others.next_batch(60)
            for name in ("cells", "cell_class", "cell_count"):
                assert np.array_equal(batch[name], same[name], equal_nan=name == "cells")
            for row, slide in enumerate(batch["slide"]):
                x, y = int(batch["x"][row]) / 2, int(batch["y"][row]) / 2
                expected = [
                    (x0 / 2 - x, y0 / 2 - y, name)
                    for x0, y0, name in cells.get(int(Path(slide).stem[-1]), [])
                    if x <= x0 / 2 < x + SIDE and y <= y0 / 2 < y + SIDE
                ]
                count = int(batch["cell_count"][row])
                most = max(most, count)
                assert count == len(expected)
                places = batch["cells"][row]
                within = np.array([place[:2] for place in expected]).reshape(count, 2)
                assert np.array_equal(places[:count], within.astype(np.float32))
                assert np.isnan(places[count:]).all()
                listed = [names[one] for one in batch["cell_class"][row, :count]]
                assert listed == [name for _, _, name in expected]
                assert (batch["cell_class"][row, count:] == -1).all()
    # The bound is one of the data, not of a guess.
    assert most <= batch["cells"].shape[1] <= 3 * most


def test_a_class_of_points_alone_can_be_drawn(folder: Path) -> None:
    """Around each cell; it lies in the middle of the row."""
    regions = {"weights": {"immune": 1}, "draw": "centroids", "objects": "detections"}
    stream = {**STREAM, "annotations": folder, "cells": "detections", "regions": regions}
    with LightDL(Dataset.from_slides(folder), **stream) as loader:
        for _ in range(10):
            batch = loader.next_batch(60)
            near = np.abs(batch["cells"] - SIDE / 2).max(axis=2) <= 0.51
            immune = batch["cell_class"] == loader.tables["region"].index("immune")
            assert (near & immune).any(axis=1).all()
            assert {Path(slide).stem for slide in batch["slide"]} <= {"slide-0", "slide-2"}


def test_cells_need_annotations(folder: Path) -> None:
    """And are of one of three kinds."""
    dataset = Dataset.from_slides(folder)
    with pytest.raises(ConfigError, match="cells needs annotations"):
        LightDL(dataset, **STREAM, cells="all")
    with pytest.raises(ConfigError, match="cells='nuclei'"):
        LightDL(dataset, **STREAM, annotations=folder, cells="nuclei")  # type: ignore[arg-type]


def test_services_whose_rows_have_room_for_other_numbers_of_cells_are_one_stream(
    folder: Path, tmp_path: Path
) -> None:
    """The rows of all have as much room as those of the one with the most."""
    stream = {**STREAM, "annotations": str(folder), "cells": "detections", "batch_slots": 0}
    del stream["arrays"]
    stream["region_names"] = ["immune", "tumor"]
    addresses = [f"ipc://{tmp_path}/{number}" for number in range(2)]
    with ExitStack() as stack:
        for number, address in enumerate(addresses):
            settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
            dataset = Dataset.from_slides(folder / f"slide-{2 * number}.tif")
            spec = configure_service(dataset, arguments(**stream), settings)
            stack.enter_context(closing(ServiceProcess(spec)))
        loader = stack.enter_context(connect(addresses, rank=0, world_size=1, arrays="numpy"))
        batch = loader.next_batch(60)
        assert len(set(batch["node"].tolist())) == 2
        assert batch["cells"].shape[:2] == batch["cell_class"].shape
        for row, count in enumerate(batch["cell_count"].tolist()):
            assert (batch["cell_class"][row] >= 0).sum() == count
            assert (~np.isnan(batch["cells"][row, :, 0])).sum() == count
