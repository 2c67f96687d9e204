"""A consumer in a process of its own: it writes down what it got, a line after each batch.

``python -m tests.service.consumer_program ADDRESS FILE --rank 0 --world-size 2 --batches 100``. A
line is the pass, the step in it, and a digest of each row.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.no_torch import have_no_torch

LOOK_S = 0.01


class Line(NamedTuple):
    """What was written of one batch."""

    epoch: int
    step: int
    rows: list[str]


def lines_of(file: Path) -> list[Line]:
    """What a consumer has written so far; a line that is not complete yet is left out."""
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [
        Line(int(epoch), int(step), rows) for epoch, step, *rows in (line.split() for line in whole)
    ]


def rows_in(file: Path) -> list[str]:
    """The digests of all rows that a consumer has written down, in its order."""
    return [row for line in lines_of(file) for row in line.rows]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("file", type=Path, help="what it got is appended here")
    parser.add_argument("--group", default="train")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--batches", type=int, default=10**6)
    parser.add_argument("--pause-file", type=Path, help="while it is there, no batch is asked for")
    parser.add_argument("--reconnect-timeout", type=float, default=60.0)
    parser.add_argument("--copy", choices=("none", "true", "false"), default="none")
    return parser.parse_args()


def _moments(batches: int, pause: Path | None) -> Iterator[None]:
    """When to ask for a batch."""
    for _ in range(batches):
        while pause is not None and pause.exists():
            time.sleep(LOOK_S)
        yield


def main() -> None:
    """Take batches until there were enough, or the pass is over."""
    given = _arguments()
    have_no_torch()
    from chunkdl.consumers.connect import connect
    from chunkdl.errors import EndOfStream
    from tests.service.digests import row_digests

    copy = {"none": None, "true": True, "false": False}[given.copy]
    with (
        connect(
            given.address,
            given.group,
            given.rank,
            given.world_size,
            given.batch_size,
            arrays="numpy",
            reconnect_timeout=given.reconnect_timeout,
        ) as loader,
        given.file.open("a") as file,
        suppress(EndOfStream),
    ):
        for _ in _moments(given.batches, given.pause_file):
            batch = loader.next_batch(60, copy=copy)
            epoch = loader.state_dict()["epoch"]
            print(epoch, batch.number, *row_digests(batch), file=file, flush=True)
            os.fdatasync(file.fileno())
            del batch


if __name__ == "__main__":
    main()
