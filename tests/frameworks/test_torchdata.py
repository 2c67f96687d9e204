"""torchdata's StatefulDataLoader goes on after any step, at the end of an epoch as well."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from chunkdl import Dataset, LightDL
from chunkdl.errors import ConfigError
from tests.frameworks.common import STREAM, Rows, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated")


@pytest.mark.parametrize("given", ["view", "itself"])
def test_a_stateful_dataloader_goes_on_after_each_step(
    two_patients: Dataset, stream: list[Rows], given: str
) -> None:
    """Its state has the loader's: a later process gets what would have come next."""
    states: list[dict[str, Any]] = []
    with contextlib.closing(LightDL(two_patients, **STREAM, batches=3)) as loader:
        dataset = loader if given == "itself" else loader.dataset_view()
        batches = StatefulDataLoader(dataset, batch_size=None)
        seen = []
        for _ in range(2):
            for batch in batches:
                seen.append(rows_of(batch))
                states.append(batches.state_dict())
            states.append(batches.state_dict())
    assert seen == stream[:6]
    # After each batch, and after the last of each epoch once more when the loop has ended.
    done = [1, 2, 3, 3, 4, 5, 6, 6]
    for state, before in list(zip(states, done, strict=True))[1:6]:
        with contextlib.closing(LightDL(two_patients, **STREAM, batches=3)) as loader:
            dataset = loader if given == "itself" else loader.dataset_view()
            batches = StatefulDataLoader(dataset, batch_size=None)
            batches.load_state_dict(state)
            rest = [rows_of(batch) for batch in batches]
            left = -before % 3 or 3
            assert rest == stream[before : before + left], before
            assert [rows_of(batch) for batch in batches] == stream[before + left :][:3]


def test_a_dataloader_that_would_go_wrong_gets_a_sentence(two_patients: Dataset) -> None:
    """Without batch_size=None batches would be bundled once more; its workers cannot have them."""
    with contextlib.closing(LightDL(two_patients, **STREAM, batches=3)) as loader:
        for dataset in loader, loader.dataset_view():
            with pytest.raises(ConfigError, match="batch_size=None"):
                next(iter(DataLoader(dataset)))
            with pytest.raises(ConfigError, match="num_workers=0"):
                next(iter(DataLoader(dataset, batch_size=None, num_workers=1)))
            assert len(DataLoader(dataset, batch_size=None)) == 3
        with pytest.raises(ConfigError, match="num_workers=0"):
            next(
                iter(
                    DataLoader(
                        loader.dataset_view(),
                        batch_size=None,
                        num_workers=1,
                        multiprocessing_context="spawn",
                    )
                )
            )
