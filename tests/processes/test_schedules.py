"""Schedules: which patients a stream is made of, and when it ends."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import (
    Dataset,
    EndOfStream,
    LabelBalanced,
    LightDL,
    NeverLoadedFirst,
    Patient,
    Policy,
    Quota,
    Record,
    RoundRobin,
    Uniform,
    Weighted,
)
from chunkdl.errors import ConfigError, HookError
from chunkdl.slides.synthetic.writing import CoordinateSlide
from tests.processes.hook_classes import NumberCollector, NumberLoader
from tests.processes.policies import ByChance, ByStatus, EndsAt, LastFirst, Stranger

NUMBERS: dict[str, Any] = {
    "batch_size": 8,
    "num_bigchunks": 3,
    "smallchunks_per_bigchunk": 20,
    "num_loaders": 2,
    "num_collectors": 1,
    "memory_limit": "64MiB",
}
TEN = Dataset("numbers", [Patient(10 + n, {"label": int(n < 2)}) for n in range(10)])


@pytest.fixture(scope="module")
def many(coordinate_slides: dict[str, CoordinateSlide]) -> Dataset:
    """Twelve patients on three slides; four of them have the label 1."""
    paths = list(coordinate_slides)
    return Dataset(
        "many",
        [
            Patient(n, {"slide": Record("/", paths[n % 3][1:]), "label": int(n < 4)})
            for n in range(12)
        ],
    )


def loads_of(batches: list[Any]) -> dict[int, int]:
    """The patient of every BigChunk, by its ordinal, in their order."""
    loads = {}
    for batch in batches:
        for bigchunk, patient in zip(batch["bigchunk"].tolist(), batch.patients, strict=True):
            loads[bigchunk] = patient.int_uniqueid
    return dict(sorted(loads.items()))


def stream(dataset: Dataset, small: dict[str, Any], policy: Policy, **more: Any) -> LightDL:
    """The native tissue stream with a policy; four BigChunks are open."""
    arguments = {**small, "num_bigchunks": 4, "smallchunks_per_bigchunk": 8, "tissue": "none"}
    return LightDL(dataset, schedule=policy, **{**arguments, **more})


def test_labels_are_balanced_in_what_is_delivered(
    many: Dataset, small_stream: dict[str, Any]
) -> None:
    """Four of twelve patients have the label 1, and half of the rows, as near as can be."""
    with stream(many, small_stream, LabelBalanced()) as loader:
        batches = [loader.next_batch(60) for _ in range(60)]

    labels = np.concatenate([batch["label"].numpy() for batch in batches])
    loads = loads_of(batches)
    of_one = [patient < 4 for patient in loads.values()]
    assert abs(labels.mean() - 0.5) < 0.05
    assert abs(np.mean(of_one) - 0.5) < 0.05
    # Also in every stretch of the stream.
    for start in range(0, len(labels) - 160, 160):
        assert 0.25 <= labels[start : start + 160].mean() <= 0.75


@pytest.mark.parametrize(
    "policy", [Uniform(), RoundRobin(), NeverLoadedFirst(), Weighted([1, 2] * 6)]
)
def test_built_in_policies_choose_the_patients_of_the_native_stream(
    many: Dataset, small_stream: dict[str, Any], policy: Policy
) -> None:
    """As their names say."""
    with stream(many, small_stream, policy) as loader:
        loads = loads_of([loader.next_batch(60) for _ in range(60)])

    chosen = Counter(loads.values())
    if isinstance(policy, Weighted):
        assert sum(chosen[n] for n in range(1, 12, 2)) > sum(chosen[n] for n in range(0, 12, 2))
    else:
        assert set(chosen) == set(range(12))
        most = 1 + max(chosen.values()) // 2 if isinstance(policy, NeverLoadedFirst) else 2
        assert max(chosen.values()) - min(chosen.values()) <= most
    if isinstance(policy, RoundRobin):
        assert list(loads.values())[:12] == list(range(12))


def test_a_quota_ends_the_native_stream(many: Dataset, small_stream: dict[str, Any]) -> None:
    """Two BigChunks of each patient, all their SmallChunks, then the end."""
    with stream(many, small_stream, Quota(Uniform(), 2)) as loader:
        batches = list(loader)
        with pytest.raises(EndOfStream):
            loader.get(60)
        assert list(loader) == []

    assert Counter(loads_of(batches).values()) == dict.fromkeys(range(12), 2)
    assert all(len(batch.patients) == 16 for batch in batches[:-4])


def test_a_quota_of_hooks_delivers_every_smallchunk() -> None:
    """Two loads of each patient, twenty SmallChunks each, less those of staggered places."""
    policy = Quota(RoundRobin(), 2)
    with LightDL(TEN, NumberLoader, NumberCollector, {}, schedule=policy, **NUMBERS) as loader:
        rows = [tuple(row) for batch in loader for row in batch["image"].tolist()]

    assert {row[:2] for row in rows} == {(patient, n) for patient in range(10, 20) for n in (0, 1)}
    assert len(rows) == len(set(rows))
    # The first three places begin in the middle of their twenty calls.
    assert len(rows) == 20 * 20 - (13 + 6 + 0)


@pytest.mark.parametrize("policy", [LastFirst(), ByChance()])
def test_a_policy_of_the_user_chooses(
    many: Dataset, small_stream: dict[str, Any], policy: Policy
) -> None:
    """In a process of its own; the same for any processes, and after a resume from JSON."""
    streams = []
    for loaders in (1, 3):
        with stream(many, small_stream, policy, num_loaders=loaders) as loader:
            batches = [loader.next_batch(60) for _ in range(25)]
            state = json.loads(json.dumps(loader.state_dict()))
            batches += [loader.next_batch(60) for _ in range(10)]
            streams.append(loads_of(batches))
    with stream(many, small_stream, policy) as loader:
        loader.load_state_dict(state)
        resumed = loads_of([loader.next_batch(60) for _ in range(10)])

    assert state["deterministic"]
    assert streams[0] == streams[1]
    assert resumed.items() <= streams[0].items()
    if isinstance(policy, LastFirst):
        assert list(streams[0].values())[:4] == [11, 10, 9, 8]


@pytest.mark.parametrize("hooks", [True, False])
def test_halt_ends_a_stream_after_what_was_loaded(
    many: Dataset, small_stream: dict[str, Any], hooks: bool
) -> None:
    """Full batches as far as they go; every load that was chosen is delivered."""
    if hooks:
        arguments = {**NUMBERS, "schedule": EndsAt(7)}
        with LightDL(TEN, NumberLoader, NumberCollector, {}, **arguments) as loader:
            batches = list(loader)
    else:
        with stream(many, small_stream, EndsAt(7)) as loader:
            batches = list(loader)

    assert len({bigchunk for batch in batches for bigchunk in batch["bigchunk"].tolist()}) == 7
    sizes = [len(batch.patients) for batch in batches]
    assert sizes[0] == (8 if hooks else 16)
    assert sizes == sorted(sizes, reverse=True)


def test_a_policy_that_looks_at_the_status_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """The stream cannot be repeated then: a warning, and the state says so."""
    arguments = {**NUMBERS, "schedule": ByStatus()}
    with (
        caplog.at_level(logging.WARNING, "chunkdl"),
        LightDL(TEN, NumberLoader, NumberCollector, {}, **arguments) as loader,
    ):
        for _ in range(15):
            loader.next_batch(60)
        state = loader.state_dict()

    assert state["deterministic"] is False
    assert caplog.text.count("looks at the status of patients") == 1


def test_a_choice_that_is_no_patient_is_an_error() -> None:
    """It is said which."""
    arguments = {**NUMBERS, "schedule": Stranger()}
    with (
        LightDL(TEN, NumberLoader, NumberCollector, {}, **arguments) as loader,
        pytest.raises(HookError, match="the schedule chose 10, which is not a patient"),
    ):
        loader.next_batch(60)


def test_a_policy_without_what_it_needs_is_refused_at_once(many: Dataset) -> None:
    """No process is started for a label that nobody has, or a policy without choose()."""
    with pytest.raises(ConfigError, match="has no label 'grade'"):
        LightDL(many, schedule=LabelBalanced("grade"))
    with pytest.raises(ConfigError, match="it has no choose"):
        LightDL(many, schedule=object())  # type: ignore[arg-type]


PROGRAM = """
import sys
import numpy as np
from chunkdl import *

class Blob:
    def __init__(self, value):
        self.value = value

class MyLoader(BigChunkLoader):
    def extract_bigchunk(self, last_message):
        return {"blob": Blob(self.rng.integers(1000, size=5)), "kind": Blob}

class MyCollector(SmallChunkCollector):
    def extract_smallchunk(self, call_count, bigchunk, last_message):
        assert type(bigchunk["blob"]) is Blob is bigchunk["kind"]
        value = bigchunk["blob"].value + self.rng.integers(1000)
        return SmallChunk(Blob(value), {"x": 3}, {}, self.patient)

class MyPolicy(Policy):
    def choose(self, now):
        return HALT if now.loads.min() >= 2 else min(now.waiting, key=now.loads.__getitem__)

dataset = Dataset("d", [Patient(n, {}) for n in range(5)])
loader = LightDL(
    dataset, MyLoader, MyCollector, None, 8, collate_func=lambda chunks, tfms: chunks,
    schedule=MyPolicy(), smallchunks_per_bigchunk=10, num_bigchunks=2, num_loaders=1,
    num_collectors=1, memory_limit="64MiB",
)
total, rows = 0, 0
with loader:
    while True:
        try:
            chunks = loader.get(60)
        except EndOfStream:
            break
        assert all(type(chunk.data) is Blob for chunk in chunks)
        total += sum(int(chunk.data.value.sum()) for chunk in chunks)
        rows += len(chunks)
print(rows, total)
"""


def test_classes_and_policy_of_a_script_and_of_a_notebook(tmp_path: Path) -> None:
    """Defined in the main module, without a guard, also of what is in a BigChunk: the same rows."""
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    outputs = [
        subprocess.run(
            command,
            input=typed,
            stdout=subprocess.PIPE,
            text=True,
            timeout=100,
            check=True,
            env=environment,
            cwd=tmp_path,
        ).stdout.strip()
        for command, typed in (
            ([sys.executable, str(script)], None),
            ([sys.executable, "-"], PROGRAM),
        )
    ]

    assert outputs[0] == outputs[1]
    assert 80 < int(outputs[0].split()[0]) <= 100
