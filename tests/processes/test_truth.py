"""Every delivered row shows exactly the place that its columns claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.slides.synthetic.writing import CoordinateSlide


def assert_rows_are_true(
    batch: Any, slides: dict[str, CoordinateSlide], side: int, patients: dict[str, str]
) -> None:
    """Compare each row with the pixels that its slide has at its columns."""
    for row in range(len(batch.patients)):
        path, level = batch["slide"][row], int(batch["level"][row])
        scale = slides[path].levels[level]
        x, y = int(batch["x"][row]), int(batch["y"][row])
        assert x % scale == 0
        assert y % scale == 0

        expected = slides[path].pixels(level, x // scale, y // scale, side, side)
        got = batch["image"][row].permute(1, 2, 0).numpy()
        assert np.array_equal(got, expected)
        assert batch["patient"][row] == patients[path]


def patients_by_path(dataset: Dataset) -> dict[str, str]:
    return {record.path: patient.name for patient in dataset for record in patient.slides}


@pytest.mark.parametrize(
    ("wish", "smallchunk", "bigchunk"),
    [
        ({"level": 0}, 64, 512),
        ({"level": 0}, 100, 333),
        ({"level": 1}, 48, 200),
        ({"mpp": 0.5}, 64, 256),
        ({"downsample": 4}, 40, 128),
    ],
)
def test_10_000_rows_are_exactly_what_their_columns_say(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    wish: dict[str, Any],
    smallchunk: int,
    bigchunk: int,
) -> None:
    """Pixels, slide, patient and place of every row agree: several patients, edges, levels."""
    patients = patients_by_path(coordinate_dataset)
    edges = set()
    with LightDL(
        coordinate_dataset,
        batch_size=50,
        smallchunk_size=smallchunk,
        bigchunk_size=bigchunk,
        num_bigchunks=7,
        smallchunks_per_bigchunk=30,
        seed=11,
        **wish,
    ) as loader:
        for _ in range(40):
            batch = loader.next_batch(60)
            assert_rows_are_true(batch, coordinate_slides, smallchunk, patients)
            level_width = coordinate_slides[batch["slide"][0]].level_size(int(batch["level"][0]))[0]
            scale = coordinate_slides[batch["slide"][0]].levels[int(batch["level"][0])]
            edges |= {int(x) // scale for x in batch["x"]} & {0, level_width - smallchunk}
            assert bool((batch["tissue_fraction"] >= 0.5).all())
            assert set(batch["patient"]) <= {"7", "9"}
            assert [bool(label) for label in batch["label"]] == [
                name == "7" for name in batch["patient"]
            ]


@pytest.mark.parametrize(("wish", "calls"), [({"level": 0}, 400), ({"mpp": 0.9}, 400)])
def test_a_high_reuse_has_room_for_all_its_rows(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    wish: dict[str, Any],
    calls: int,
) -> None:
    """A slot has room for the SmallChunks that these slides come to, and for no others."""
    patients = patients_by_path(coordinate_dataset)
    with LightDL(
        coordinate_dataset,
        batch_size=256,
        smallchunk_size=32,
        bigchunk_size=160,
        num_bigchunks=4,
        reuse=16.0,
        tissue_threshold=0.0,
        memory_limit="64MiB",
        **wish,
    ) as loader:
        for _ in range(40):
            batch = loader.next_batch(60)
            if "level" in wish:
                assert_rows_are_true(batch, coordinate_slides, 32, patients)
        assert int(batch["call"].max()) > calls / 2
        assert calls / 2 < loader.stats(60).smallchunks_per_bigchunk <= calls


def test_a_resampled_row_is_the_same_from_every_window(
    coordinate_dataset: Dataset,
) -> None:
    """At an mpp between two levels, equal places give equal pixels whatever BigChunk they are of.

    With two BigChunk sizes the windows differ, and the pixels of a position must not.
    """
    seen: dict[tuple[str, int, int], bytes] = {}
    twice = 0
    for bigchunk in (160, 320):
        with LightDL(
            coordinate_dataset,
            batch_size=64,
            smallchunk_size=32,
            bigchunk_size=bigchunk,
            mpp=0.9,
            num_bigchunks=8,
            smallchunks_per_bigchunk=400,
            tissue_threshold=0.9,
            seed=5,
        ) as loader:
            for _ in range(150):
                batch = loader.next_batch(60)
                for row, path in enumerate(batch["slide"]):
                    place = (path, int(batch["x"][row]), int(batch["y"][row]))
                    pixels = batch["image"][row].numpy().tobytes()
                    twice += place in seen
                    assert seen.setdefault(place, pixels) == pixels
    assert twice > 50
