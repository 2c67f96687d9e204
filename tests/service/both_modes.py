"""Two consumers of a group that shares the rows, or of one that gives all to each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from chunkdl.consumers.connect import connect
from chunkdl.consumers.shared import SharedDL
from tests.service.conftest import row_digests
from tests.service.two_ranks import joined


def is_stretch(rows: list[str], reference: tuple[str, ...]) -> bool:
    """Whether these are rows of the stream, from anywhere on, each once and in order."""
    first = reference.index(rows[0])
    return rows == list(reference[first : first + len(rows)])


def readers_of(
    stack: ExitStack, group: str, addresses: Sequence[str], **given: Any
) -> list[SharedDL]:
    """Both ranks of the shard group, or two members of the broadcast."""
    if group == "train":
        return stack.enter_context(joined(addresses, **given))
    return [stack.enter_context(connect(address, group, **given)) for address in addresses]


def each_row_once(parts: list[list[str]], group: str, reference: tuple[str, ...]) -> bool:
    """Whether two ranks have had the same number of steps of the stream, or two members rows."""
    if group == "train":
        starts = range(0, len(parts[0]), 8)
        parts = [[row for at in starts for part in parts for row in part[at : at + 8]]]
        return parts[0] == list(reference[: len(parts[0])])
    return all(is_stretch(part, reference) for part in parts)


def in_turn(readers: Sequence[SharedDL], parts: list[list[str]], batches: int) -> None:
    """Take so many batches more of each, in turn, for they wait for each other."""
    for _ in range(batches):
        for reader, part in zip(readers, parts, strict=True):
            part += row_digests(reader.next_batch(60))
