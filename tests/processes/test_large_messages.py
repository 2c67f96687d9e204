"""What is too large for one message comes all the same, in parts."""

from __future__ import annotations

from typing import Any

from chunkdl import Dataset, LightDL, Patient
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES
from tests.processes.hook_classes import NumberCollector, NumberLoader
from tests.processes.policies import ByChance, ByStatus

NUMBERS: dict[str, Any] = {
    "batch_size": 8,
    "num_bigchunks": 3,
    "smallchunks_per_bigchunk": 8,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "64MiB",
}


class LargeStatus(NumberCollector):
    """Its status takes nearly half of a message."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """As before."""
        row = super().extract_smallchunk(call_count, bigchunk, last_message_fromroot)
        self.set_status("x" * (MAX_MESSAGE_BYTES // 3))
        return row


class BySize(ByStatus):
    """Reads every status there is."""

    def choose(self, now: Any) -> int:
        """The first of those with the shortest one."""
        sizes = {patient: len(str(status)) for patient, status in now.status.items()}
        return int(min(now.waiting, key=lambda patient: sizes.get(patient, 0)))


def test_a_grid_of_any_number_of_windows_streams(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Of each slide more windows than the 16,384 whose counts would fit into a message."""
    size = {"smallchunk_size": 8, "bigchunk_size": 8, "smallchunks_per_bigchunk": None}
    given = {**small_stream, **size, "tissue": "none", "memory_limit": "64MiB"}
    with LightDL(coordinate_dataset, grid=True, **given) as loader:
        first = loader.next_batch(120)
    # Each window is one position of its own.
    assert len(set(zip(first["x"].tolist(), first["y"].tolist(), strict=True))) == 16


def test_a_policy_of_ones_own_chooses_among_any_number_of_patients() -> None:
    """What it is told of 20,000 patients is larger than a message."""
    many = Dataset("numbers", [Patient(n, {}) for n in range(20_000)])
    arguments = {**NUMBERS, "schedule": ByChance()}
    with LightDL(many, NumberLoader, NumberCollector, {}, **arguments) as loader:
        patients = {p.int_uniqueid for _ in range(6) for p in loader.next_batch(60).patients}
    assert max(patients) > 1_000


def test_the_statuses_of_patients_may_be_large_together() -> None:
    """Four of them do not fit into one message; when each is known depends on the processes."""
    few = Dataset("numbers", [Patient(n, {}) for n in range(10)])
    arguments = {**NUMBERS, "schedule": BySize()}
    patients: set[int] = set()
    with LightDL(few, NumberLoader, LargeStatus, {}, **arguments) as loader:
        for _ in range(200):
            patients |= {p.int_uniqueid for p in loader.next_batch(60).patients}
            if len(patients) == 10:
                break
    assert patients == set(range(10))
