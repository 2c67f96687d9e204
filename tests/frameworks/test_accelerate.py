"""accelerate: what a loader gives, and what is saved, in one process and in two."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch.utils.data import DataLoader

from chunkdl import Dataset, LightDL
from tests.frameworks.common import GRID, STREAM, Rows, rows_of, run_program, torchrun

pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """accelerate keeps what the first Accelerator of a process was told."""
    yield
    for state in AcceleratorState, GradientState, PartialState:
        state._shared_state.clear()


def prepared(loader: LightDL, *, stateful: bool = False) -> tuple[Any, Any]:
    """An accelerator, and the loader as it makes it."""
    configuration = DataLoaderConfiguration(use_stateful_dataloader=stateful)
    accelerator = Accelerator(cpu=True, dataloader_config=configuration)
    accelerator.register_for_checkpointing(loader)
    return accelerator, accelerator.prepare(DataLoader(loader.dataset_view(), batch_size=None))


@pytest.mark.parametrize("stateful", [False, True])
def test_one_process_goes_on_after_each_step(
    two_patients: Dataset, stream: list[Rows], tmp_path: Path, *, stateful: bool
) -> None:
    """accelerate is a batch ahead; what it saves is after the batch that the training has."""
    with contextlib.closing(LightDL(two_patients, **STREAM, batches=3)) as loader:
        accelerator, batches = prepared(loader, stateful=stateful)
        seen = []
        for _ in range(2):
            for batch in batches:
                seen.append(rows_of(batch))
                accelerator.save_state(str(tmp_path / f"{len(seen)}"))
    assert seen == stream[:6]
    for before in 1, 3, 4:
        with contextlib.closing(LightDL(two_patients, **STREAM, batches=3)) as loader:
            accelerator, batches = prepared(loader, stateful=stateful)
            accelerator.load_state(str(tmp_path / f"{before}"))
            left = -before % 3 or 3
            assert [rows_of(batch) for batch in batches] == stream[before : before + left]


def test_a_shuffled_pass_that_was_broken_off_goes_on(two_patients: Dataset) -> None:
    """accelerate counts epochs from 0 again after a resume; the pass that was loaded counts."""
    grid = {**GRID, "shuffle": True}
    with contextlib.closing(LightDL(two_patients, **grid)) as loader:
        passes = [[rows_of(batch) for batch in loader] for _ in range(3)]
    with contextlib.closing(LightDL(two_patients, **grid)) as loader:
        _, batches = prepared(loader)
        assert [rows_of(batch) for batch in batches] == passes[0]
        for number, batch in enumerate(batches, 1):
            assert rows_of(batch) == passes[1][number - 1]
            if number == 2:
                break
        state = loader.state_dict()
    with contextlib.closing(LightDL(two_patients, **grid)) as loader:
        _, batches = prepared(loader)
        loader.load_state_dict(state)
        assert [rows_of(batch) for batch in batches] == passes[1][2:]
        assert [rows_of(batch) for batch in batches] == passes[2]
        batches.set_epoch(1)
        assert [rows_of(batch) for batch in batches] == passes[1]


@pytest.mark.slow
def test_two_processes_are_dealt_out_batches_or_share_a_stream(
    two_slides: Path, tmp_path: Path
) -> None:
    """Every row once, in the order of one process; what cannot be right is a sentence."""
    printed = run_program(
        "accelerate_ranks.py",
        str(two_slides),
        str(tmp_path),
        launcher=torchrun(2),
        ACCELERATE_USE_CPU="true",
    )
    assert re.search(r"^shared$", printed, re.MULTILINE)
    refused = re.findall(r"^refused: (.*)", printed, re.MULTILINE)
    assert len(refused) == 3
    assert "tensors_only=True" in refused[0]
    assert all("LightDL.for_ddp" in said for said in refused[:2])
    assert all("accelerator.prepare" in said for said in refused)
