"""`LightDL.for_ddp` on several machines: the first rank's state is enough for all of them.

Two machines are played on this one, as two agents of torchrun would: the environment of each rank
says on which it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.service.rank_program import Given, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 8
SIDE, SMALLER = 1500, 700


def machines(nodes: int, ranks_of_each: int) -> list[dict[str, str]]:
    """What torchrun tells the ranks of so many machines, in their order."""
    return [
        {
            "RANK": str(node * ranks_of_each + local),
            "WORLD_SIZE": str(nodes * ranks_of_each),
            "LOCAL_RANK": str(local),
            "LOCAL_WORLD_SIZE": str(ranks_of_each),
            "GROUP_RANK": str(node),
        }
        for node in range(nodes)
        for local in range(ranks_of_each)
    ]


def flat(batches: list[list[str]]) -> list[str]:
    """The rows of all batches."""
    return [row for rows in batches for row in rows]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four patients; those of the second machine are smaller, and one of them is damaged."""
    patients = []
    for number in range(4):
        side = SMALLER if number % 2 else SIDE
        slide = tmp_path / f"{number}.tif"
        write_coordinate_slide(slide, side, side, slide_id=number, tile=128, levels=(1,))
        if number == 3:
            data = bytearray(slide.read_bytes())
            first, end = len(data) * 2 // 5, len(data) * 3 // 5
            data[first:end] = bytes(end - first)
            slide.write_bytes(data)
        mask: dict[str, object] = {"tissue_mask": np.ones((5, 5), dtype=bool)}
        patients.append(Patient(number, {"slide": Record(tmp_path, slide.name, mask)}))
    return Dataset("machines", patients)


@pytest.fixture
def given(dataset: Dataset) -> Callable[..., Given]:
    """Makes what the ranks do, with fields changed."""
    stream = {
        "batch_size": 8,
        "smallchunk_size": 64,
        "bigchunk_size": 256,
        "num_bigchunks": 4,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "256MiB",
        "mask_cache": None,
        "on_error": "substitute",
        "seed": 5,
    }

    def make(**fields: Any) -> Given:
        return Given(dataset, {**stream, **fields.pop("stream", {})}, **fields)

    return make


def test_every_machine_goes_on_from_the_state_of_the_first_rank(
    tmp_path: Path, given: Callable[..., Given]
) -> None:
    """Bit for bit, also where a machine had to replace what it could not read, and with other
    numbers of ranks on each. All ranks have the same state.
    """
    whole = run_ranks(tmp_path, "whole", given(steps=STEPS), machines(2, 1))
    assert [got.error for got in whole] == ["", ""]
    assert whole[0].states == whole[1].states
    assert not {row for step in whole[0].rows for row in step} & {
        row for step in whole[1].rows for row in step
    }
    replaced = [bool(state["learned"][1]["substitutions"]) for state in whole[0].states]
    step = 1 + replaced[1:].index(True)
    state = json.loads(json.dumps(whole[0].states[step]))
    rest = STEPS - 1 - step
    assert rest

    same = run_ranks(tmp_path, "same", given(steps=rest, state=state), machines(2, 1))
    for before, after in zip(whole, same, strict=True):
        assert after.error == ""
        assert after.rows == before.rows[step + 1 :]
        # What a service knows of rows to come depends on how far it is ahead.
        lefts = [[one["left"] for one in got.states] for got in (after, before)]
        assert lefts[0] == lefts[1][step + 1 :]

    half = given(steps=rest, state=state, stream={"batch_size": 4})
    more = run_ranks(tmp_path, "more", half, machines(2, 2))
    assert [got.error for got in more] == [""] * 4
    for node in range(2):
        pair = more[2 * node : 2 * node + 2]
        steps = zip(*(got.rows for got in pair), strict=True)
        assert [[*a, *b] for a, b in steps] == whole[node].rows[step + 1 :]


def test_a_grid_of_several_machines_goes_on_from_the_state_of_the_first_rank(
    tmp_path: Path, given: Callable[..., Given]
) -> None:
    """Each machine has a pass of its own length. From any step each goes on with its own rest;
    from the end of the pass of the first rank all begin the next.
    """
    grid = {"grid": True, "on_error": None}
    passes = run_ranks(tmp_path, "whole", given(passes=2, stream=grid), machines(2, 1))
    assert [got.error for got in passes] == ["", ""]
    long, short = (len(got.rows) // 2 for got in passes)
    assert long > short + 2
    for got in passes:
        first, second = flat(got.rows[: len(got.rows) // 2]), flat(got.rows[len(got.rows) // 2 :])
        assert len(first) == len(set(first)) == len(set(second)) == len(second)

    for saved, kind in ((short - 2, "both are in it"), (short + 1, "one is through")):
        for saver in range(2):
            # The state of the one whose pass is longer; of the other where it is not through.
            if saved >= (long, short)[saver]:
                continue
            again = given(passes=1, stream=grid, state=passes[saver].states[saved - 1])
            rest = run_ranks(tmp_path, f"{kind}-{saver}", again, machines(2, 1))
            for got, before, length in zip(rest, passes, (long, short), strict=True):
                assert got.error == ""
                assert got.rows == before.rows[min(saved, length) : length]

    for saver, length in ((0, long), (1, short)):
        again = given(passes=1, stream=grid, state=passes[saver].states[length])
        rest = run_ranks(tmp_path, f"end-{saver}", again, machines(2, 1))
        for got, before in zip(rest, passes, strict=True):
            assert got.error == ""
            assert got.rows == before.rows[len(before.rows) // 2 :]
