"""100,000 polygons in one file: seconds, a stated memory, and windows that look at few of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from chunkdl.annotations.kept import AnnotationCache
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.shapes import Annotations

COUNT = 100_000
CORNERS = 16
SIDE = 60_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of three classes all over a slide, as QuPath writes them."""
    rng = np.random.default_rng(1)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    radii = rng.uniform(8, 16, (COUNT, 1, 1)) * rng.uniform(0.9, 1.1, (COUNT, CORNERS, 1))
    rings = np.round(rng.uniform(20, SIDE - 20, (COUNT, 1, 2)) + radii * around, 2)
    rings = np.concatenate([rings, rings[:, :1]], axis=1)
    path = tmp_path_factory.mktemp("many") / "cells.geojson"
    with path.open("w") as out:
        out.write('{"type": "FeatureCollection", "features": [')
        for number, ring in enumerate(rings.tolist()):
            out.write(
                f'{"," if number else ""}{{"type": "Feature", "id": "{number:032x}", "geometry": '
                f'{{"type": "Polygon", "coordinates": [{json.dumps(ring)}]}}, "properties": '
                f'{{"objectType": "annotation", "classification": {{"name": "{"abc"[number % 3]}",'
                ' "color": [1, 2, 3]}, "measurements": {"Area": 1.5}}}'
            )
        out.write("]}")
    return path


@dataclass(frozen=True)
class Read:
    """What is read from it, how long that took, and where it is kept."""

    cells: Annotations
    cpu_s: float
    cache: AnnotationCache


@pytest.fixture(scope="module")
def read(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Read once, as by the first process."""
    cache = AnnotationCache(tmp_path_factory.mktemp("kept"))
    began = time.process_time()
    found = cache.of_file(file, size=(SIDE, SIDE))
    return Read(found, time.process_time() - began, cache)


@pytest.fixture(scope="module")
def cells(read: Read) -> Annotations:
    """What is read from it."""
    return read.cells


def test_all_of_them_are_read(cells: Annotations) -> None:
    """Into 8 bytes a vertex, 24 a ring and 66 a feature."""
    assert len(cells) == COUNT
    assert cells.classes == ("a", "b", "c")
    assert cells.notes == ()
    assert cells.nbytes <= 8 * len(cells.vertices) + (24 + 66) * COUNT + 100
    assert len(cells.vertices) <= CORNERS * COUNT


def test_reading_takes_few_times_what_parsing_json_takes(file: Path, read: Read) -> None:
    """Seconds where that is a second: most of the work is done for thousands at a time."""
    began = time.process_time()
    json.loads(file.read_text())
    assert read.cpu_s < 15 * (time.process_time() - began)


def test_reading_takes_the_memory_that_is_stated(file: Path, cells: Annotations) -> None:
    """The bytes of the file, three times the arrays, and 100 MiB at most."""
    program = (
        "import pathlib, sys, shapely\n"
        "from chunkdl.annotations.reading import read_annotations\n"
        "def peak():\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(status.partition('VmHWM:')[2].split()[0]) * 1024\n"
        "before = peak()\n"
        "read_annotations(sys.argv[1])\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    stated = file.stat().st_size + 3 * cells.nbytes + 100 * 2**20
    assert file.stat().st_size < int(done.stdout) < stated


def test_a_window_looks_at_few_of_them(cells: Annotations) -> None:
    """1,024 pixels of the slide take a small part of the time that all of it takes to read."""
    began = time.process_time()
    for step in range(20):
        raster = rasterise(
            cells, downsample=1, origin=(3000 * step, 2500 * step), size=(1024, 1024)
        )
        assert raster.any()
    window = (time.process_time() - began) / 20
    began = time.process_time()
    whole = rasterise(cells, downsample=16, origin=(0, 0), size=(SIDE // 16, SIDE // 16))
    assert window < (time.process_time() - began) / 5
    share = (whole != 0).mean()
    assert share == pytest.approx(cells.areas.sum() / SIDE**2, rel=0.1)


def test_mapping_them_takes_a_small_part_of_reading_them(file: Path, read: Read) -> None:
    """Every process but the first."""
    began = time.process_time()
    mapped = read.cache.of_file(file, size=(SIDE, SIDE))
    assert time.process_time() - began < read.cpu_s / 5
    assert mapped.digest() == read.cells.digest()
