"""The warning about batches that have many rows of one BigChunk."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.settings.mixing import MOST_NEIGHBOURS, enough_for
from chunkdl.patches.hooks import BigChunkLoader
from chunkdl.sampling.rotation import most_rows_of_one
from chunkdl.slides.synthetic.writing import write_coordinate_slide


class OwnLoader(BigChunkLoader):
    """A class of the user that is never run."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six patients with a tiny slide each."""
    paths = [tmp_path_factory.mktemp("mixing") / f"{number}.tif" for number in range(6)]
    for path in paths:
        write_coordinate_slide(path, 256, 256, tile=128)
    return Dataset.from_slides(paths)


def warned(dataset: Dataset, caplog: pytest.LogCaptureFixture, tmp_path: Path, **given: Any) -> str:
    """What is said of a stream with these settings; empty: nothing."""
    settings = {
        "smallchunk_size": 32,
        "bigchunk_size": 64,
        "tissue": "none",
        "num_loaders": 1,
        "memory_limit": "64MiB",
        "mask_cache": tmp_path,
        **given,
    }
    caplog.clear()
    with caplog.at_level(logging.WARNING, "chunkdl"):
        configure(dataset, Arguments(**settings))
    return " ".join(message for message in caplog.messages if "num_bigchunks" in message)


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        ({}, ""),
        ({"batch_size": 64, "num_bigchunks": 32}, ""),
        ({"batch_size": 128, "num_bigchunks": 32}, "have 4 rows .* num_bigchunks=64 at most 2 "),
        ({"batch_size": 64, "num_bigchunks": 33}, "have 3 rows .* num_bigchunks=32 at most 2 "),
        ({"batch_size": 12, "num_bigchunks": 4}, "num_bigchunks=6 .* num_bigchunks=12 one of each"),
        # Each place is used up by two rows.
        ({"batch_size": 64, "num_bigchunks": 8, "smallchunks_per_bigchunk": 2}, ""),
        ({"batch_size": 64, "num_bigchunks": 8, "grid": True}, ""),
        ({"batch_size": 64, "num_bigchunks": 8, "replacement": False}, ""),
    ],
    ids=str,
)
def test_a_warning_says_what_to_set(
    dataset: Dataset,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    given_settings: dict[str, Any],
    says: str,
) -> None:
    """Of endless streams whose batches may have more than two rows of one BigChunk; no others."""
    told = warned(dataset, caplog, tmp_path, **given_settings)
    assert bool(told) == bool(says)
    assert re.search(says, told)


def test_what_the_warning_says_to_set_is_not_warned_of(
    dataset: Dataset, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Both numbers."""
    told = warned(dataset, caplog, tmp_path, batch_size=40, num_bigchunks=3)
    numbers = [int(number) for number in re.findall(r"num_bigchunks=(\d+)", told)]
    assert numbers == [3, 20, 40]
    for number in numbers[1:]:
        assert not warned(dataset, caplog, tmp_path, batch_size=40, num_bigchunks=number)


def test_with_checkpoints_no_more_is_asked_for_than_there_are_patients(
    dataset: Dataset, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Each patient is open once, so with six of them more BigChunks would help nothing."""
    own = {"bigchunkloader": OwnLoader, "batch_size": 24}
    assert not warned(dataset, caplog, tmp_path, **own, num_bigchunks=32)
    assert not warned(dataset, caplog, tmp_path, **own, num_bigchunks=6)
    assert "num_bigchunks=6 at most 4 of one" in warned(
        dataset, caplog, tmp_path, **own, num_bigchunks=2
    )
    assert "num_bigchunks=12 at most 2 of one" in warned(
        dataset, caplog, tmp_path, **own, num_bigchunks=6, checkpoints=False
    )


@given(rows=st.integers(1, 4096))
def test_enough_is_the_least_that_is_enough(rows: int) -> None:
    """And as many as there are rows is one of each."""
    least = enough_for(rows)
    assert most_rows_of_one(rows, least) <= MOST_NEIGHBOURS
    for fewer in range(max(1, least - 50), least):
        assert most_rows_of_one(rows, fewer) > MOST_NEIGHBOURS
    assert most_rows_of_one(rows, rows) == 1
