"""What went wrong with PyDmed does not any more: a test for each defect that was found in it.

Number 11 is in `test_label_balanced`, 12 in `test_sliding_window`, 13 in `test_streamcollector`, 14
in `test_output`; 15, that only fork worked, in `test_programs`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from chunkdl.dataset.patients import Patient
from chunkdl.errors import Closed, ConfigError, HookError
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.pydmed import lightdl
from chunkdl.pydmed.lightdl import (
    PYDMEDRESERVED_DLRETURNEDLASTINSTANCE,
    PYDMEDRESERVED_HALTDL,
    LightDL,
    get_default_constglobinf,
)
from tests.pydmed.counting import (
    NumberedCollector,
    NumberedLoader,
    numbered_patients,
    running,
)

Processes = Callable[..., list[psutil.Process]]


def batches(loader: LightDL, count: int) -> list[SmallChunk]:
    """The SmallChunks of the next so many batches."""
    return [chunk for _ in range(count) for chunk in loader.get()[2]]


def load_of(chunk: SmallChunk | BigChunk) -> Any:
    return chunk.dict_info_of_bigchunk["load"]


class Torn(NumberedLoader):
    """Cannot read patient 1."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        if self.patient.int_uniqueid == 1:
            raise ValueError("the slide is torn")
        return super().extract_bigchunk(last_message_fromroot)


class Twice(LightDL):
    """Each patient twice, in turn."""

    def initial_schedule(self) -> list[Patient]:
        return []

    def schedule(self) -> Any:
        counts = [
            (self.get_schedcount_of(patient), patient)
            for patient in self.get_list_waitingpatients()
        ]
        count, patient = min(counts)
        return PYDMEDRESERVED_HALTDL if count == 2 else (None, patient)


class Broken(LightDL):
    """Cannot schedule."""

    def schedule(self) -> Any:
        raise KeyError("who?")


# ---- 1 to 3: errors and small datasets end no stream in silence.


def test_1_an_exception_in_a_hook_comes_out_of_get() -> None:
    """Also in that of the first loads: with its text, the hook, and the patient."""
    with (
        running(numbered_patients(3), type_bigchunkloader=Torn) as loader,
        pytest.raises(HookError, match=r"torn \[Torn.extract_bigchunk, patient 1\]") as caught,
    ):
        batches(loader, 20)
    assert "in extract_bigchunk" in str(caught.value.__cause__)


def test_1_a_patient_that_cannot_be_read_may_be_left_out() -> None:
    """With on_error="substitute" the others take its places."""
    with running(numbered_patients(4), type_bigchunkloader=Torn, on_error="substitute") as loader:
        patients = {chunk.patient.int_uniqueid for chunk in batches(loader, 40)}
    assert patients == {0, 2, 3}


def test_2_an_exception_in_the_schedule_comes_out_of_get() -> None:
    """With its text and the name of the user's method."""
    with (
        running(numbered_patients(6), kind=Broken) as loader,
        pytest.raises(HookError, match=r"who\?.*Broken.schedule"),
    ):
        batches(loader, 20)


@pytest.mark.parametrize("patients", [1, 3])
def test_3_a_dataset_may_have_fewer_patients_than_loaders(patients: int) -> None:
    """Or as many: they are loaded again and again."""
    with running(numbered_patients(patients), places=3) as loader:
        chunks = batches(loader, 20)
    assert len({chunk.patient for chunk in chunks}) == patients
    assert len({load_of(chunk) for chunk in chunks}) >= 12


# ---- 4 to 6: messages and checkpoints.


@pytest.mark.parametrize("flag", ["flag_enable_setgetcheckpoint", "flag_enable_sendgetmessage"])
def test_4_each_flag_may_be_off_alone(flag: str) -> None:
    """The loader starts and delivers."""
    off: dict[str, Any] = {flag: False}
    with running(numbered_patients(4), **off) as loader:
        assert len(batches(loader, 3)) == 6


def test_5_messages_reach_the_patients_of_later_rounds() -> None:
    """Each exactly one load, of the patient that it was sent to."""
    patients = numbered_patients(9)
    with running(patients) as loader:
        batches(loader, 1)
        for patient in patients:
            loader.send_message(patient, f"to {patient.int_uniqueid}")
        chunks = batches(loader, 120)
    got = {
        load_of(chunk): (chunk.patient, chunk.dict_info_of_bigchunk["message"]) for chunk in chunks
    }
    came = [(patient, message) for patient, message in got.values() if message is not None]
    assert sorted(came) == [(patient, f"to {patient.int_uniqueid}") for patient in patients]


class SetOnce(NumberedCollector):
    """Sets a checkpoint in the first load of its patient only."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        if self.get_checkpoint() is None:
            self.set_checkpoint(["of", self.patient.int_uniqueid])
        return super().extract_smallchunk(call_count, bigchunk, message)


def test_6_a_load_that_sets_no_checkpoint_leaves_the_old_one() -> None:
    """Every load behind the first has it, and the trainer can read it."""
    patients = numbered_patients(3)
    with running(patients, type_smallchunkcollector=SetOnce) as loader:
        chunks = batches(loader, 60)
        kept = [loader.get_checkpoint(patient) for patient in patients]
    of_patient: dict[Patient, dict[int, Any]] = defaultdict(dict)
    for chunk in chunks:
        of_patient[chunk.patient][load_of(chunk)] = chunk.dict_info_of_bigchunk["checkpoint"]
    assert kept == [["of", 0], ["of", 1], ["of", 2]]
    for patient, seen in of_patient.items():
        first, *later = seen.values()
        assert first is None
        assert len(later) > 3
        assert all(checkpoint == ["of", patient.int_uniqueid] for checkpoint in later)


# ---- 7 to 10: what is delivered, drawn, logged and remembered.


class Large(NumberedCollector):
    """SmallChunks that are larger than a pipe."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        chunk = super().extract_smallchunk(call_count, bigchunk, message)
        chunk.data = np.full((200, 200, 3), call_count, dtype=np.uint8)
        return chunk


def test_7_nothing_is_lost_at_a_replacement() -> None:
    """Every call of every load is delivered once, up to the last one behind a halt."""
    given = 12
    with running(
        numbered_patients(20), kind=Twice, given=given, batch_size=7, type_smallchunkcollector=Large
    ) as loader:
        chunks, sizes = [], []
        while not isinstance(returned := loader.get(), str):
            chunks += returned[2]
            sizes.append(len(returned[2]))
            assert all(int(x.max()) == int(x.min()) for x in returned[0])
    calls = defaultdict(list)
    for chunk in chunks:
        calls[load_of(chunk)].append(chunk.dict_info_of_smallchunk["call"])
    assert len(calls) == 40
    assert all(numbers == list(range(len(numbers))) for numbers in calls.values())
    # The first one of a place is shorter, so that they are not all used up at a time.
    assert Counter(map(len, calls.values())) == {given: 39, given // 2: 1}
    assert set(sizes[:-1]) == {7}


class DrawingLoader(NumberedLoader):
    """Says what numpy and Python draw."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        bigchunk = super().extract_bigchunk(last_message_fromroot)
        bigchunk.dict_info_of_bigchunk["drawn"] = [np.random.random(), random.random()]
        return bigchunk


class DrawingCollector(NumberedCollector):
    """Says what numpy and Python draw."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        chunk = super().extract_smallchunk(call_count, bigchunk, message)
        chunk.dict_info_of_smallchunk["drawn"] = [np.random.random(), random.random()]
        return chunk


def test_8_no_two_calls_of_hooks_draw_the_same_numbers() -> None:
    """A loader and its collector, BigChunks of one second, calls of one BigChunk, streams of two
    seeds."""

    def drawn(seed: int) -> list[float]:
        with running(
            numbered_patients(8),
            places=4,
            type_bigchunkloader=DrawingLoader,
            type_smallchunkcollector=DrawingCollector,
            num_collectors=2,
            seed=seed,
        ) as loader:
            chunks = batches(loader, 25)
        loads = {load_of(chunk): chunk.dict_info_of_bigchunk["drawn"] for chunk in chunks}
        calls = [chunk.dict_info_of_smallchunk["drawn"] for chunk in chunks]
        return [number for pair in [*loads.values(), *calls] for number in pair]

    first = drawn(0)
    assert len(first) > 2 * (100 + 25)
    assert len(set(first)) == len(first)
    assert not set(drawn(1)) & set(first)


class LoudLoader(NumberedLoader):
    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        bigchunk = super().extract_bigchunk(last_message_fromroot)
        self.log(f"loaded {load_of(bigchunk)}\n")
        return bigchunk


class LoudCollector(NumberedCollector):
    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        for line in range(5):
            self.log(f"cut {load_of(bigchunk)} {call_count} {line} {'.' * 100}")
        return super().extract_smallchunk(call_count, bigchunk, message)


def test_9_every_line_of_the_log_is_on_the_disk(tmp_path: Path) -> None:
    """What was logged before a SmallChunk was delivered is there with the next flush, and what
    the trainer logs too; thousands of lines, each whole and once."""
    path = tmp_path / "log"
    with running(
        numbered_patients(5),
        type_bigchunkloader=LoudLoader,
        type_smallchunkcollector=LoudCollector,
        fname_logfile=path,
        batch_size=100,
        given=20,
        num_collectors=2,
    ) as loader:
        chunks = batches(loader, 8)
        loader.log("the trainer")
        loader.flush_log()
        lines = Counter(path.read_text().splitlines())
    assert set(lines.values()) == {1}
    assert "the trainer" in lines
    for chunk in chunks:
        assert f"loaded {load_of(chunk)}" in lines
        call = chunk.dict_info_of_smallchunk["call"]
        for line in range(5):
            assert f"cut {load_of(chunk)} {call} {line} {'.' * 100}" in lines


def test_10_what_is_remembered_to_be_visualized_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last ones, without their data; every patient is visualized, after the end too."""
    monkeypatch.setattr(lightdl, "MOST_FOR_VISUALIZATION", 50)
    with running(numbered_patients(40)) as loader:
        chunks = batches(loader, 60)
        assert all(chunk.data is not None for chunk in chunks)
    seen: dict[Patient, list[SmallChunk]] = {}
    loader.visualize(seen.__setitem__)
    assert len(seen) == 40
    remembered = [chunk for of_patient in seen.values() for chunk in of_patient]
    assert Counter(map(load_of, remembered)) == Counter(map(load_of, chunks[-50:]))
    assert all(chunk.data is None for chunk in remembered)


# ---- 15 and 16: what a process takes.


def test_16_nothing_but_numbers_is_imported_for_a_dataset() -> None:
    """No torch with any module of the layer, nor what PyDmed needed besides."""
    heavy = ("torch", "torchvision", "matplotlib", "psutil", "skimage", "scipy", "zmq")
    program = (
        "import json, sys\n"
        "import chunkdl.pydmed.utils.data\n"
        "first = set(sys.modules)\n"
        "import chunkdl.pydmed as pydmed\n"
        "pydmed.lightdl, pydmed.streamcollector, pydmed.stat, pydmed.utils\n"
        "pydmed.extensions.wsi, pydmed.extensions.dl\n"
        "print(json.dumps([sorted(first), sorted(sys.modules)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    data, everything = map(set, json.loads(done.stdout))
    assert not data & {*heavy, "openslide", "tifffile", "PIL"}
    assert not everything & set(heavy)


class Naming(NumberedLoader):
    """Says whether its process has torch."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        bigchunk = super().extract_bigchunk(last_message_fromroot)
        bigchunk.dict_info_of_bigchunk["torch"] = "torch" in sys.modules
        return bigchunk


class NamingSchedule(LightDL):
    """Ends the stream if its process has torch."""

    def schedule(self) -> Any:
        return PYDMEDRESERVED_HALTDL if "torch" in sys.modules else super().schedule()


class NamingCollector(NumberedCollector):
    """Says whether its process has torch."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        chunk = super().extract_smallchunk(call_count, bigchunk, message)
        chunk.dict_info_of_smallchunk["torch"] = "torch" in sys.modules
        return chunk


def test_16_no_worker_imports_torch_for_hooks_that_do_not() -> None:
    """Neither loader, collector nor the process of the schedule."""
    with running(
        numbered_patients(9),
        kind=NamingSchedule,
        type_bigchunkloader=Naming,
        type_smallchunkcollector=NamingCollector,
    ) as loader:
        chunks = batches(loader, 20)
    assert not any(chunk.dict_info_of_bigchunk["torch"] for chunk in chunks)
    assert not any(chunk.dict_info_of_smallchunk["torch"] for chunk in chunks)


# ---- How it stops, and what it leaves.


def test_a_loader_ends_once_for_all() -> None:
    """Pausing twice is not an error; nothing waits for ever behind it; the state is right."""
    loader = LightDL(
        *(numbered_patients(3), NumberedLoader, NumberedCollector),
        *(get_default_constglobinf(), 4, None),
        num_loaders=1,
        num_collectors=1,
    )
    assert not loader.is_dl_running()
    with pytest.raises(ConfigError, match=r"call start\(\)"):
        loader.get()
    loader.start()
    loader.start()
    batches(loader, 2)
    assert loader.is_dl_running()
    loader.pause_loading()
    loader.pause_loading()
    assert not loader.is_dl_running()
    for again in (loader.get, loader.start):
        with pytest.raises(Closed, match="make a new one"):
            again()


def test_get_behind_the_end_gives_the_reserved_string_again() -> None:
    """Full batches up to the last; a trainer that pauses between does not change them."""
    with running(numbered_patients(3), kind=Twice, batch_size=5) as loader:
        whole = [chunk.dict_info_of_bigchunk for chunk in batches(loader, 3)]
        assert loader.is_dl_running()
        loader.pause()
        last = loader.get()[2]
        ends = [loader.get(), loader.get()]
        assert not loader.is_dl_running()
    # Six loads, of which the first of one place gives half: 22 SmallChunks.
    rest = 22 - len(whole) - len(last)
    assert (len(whole), len(last)) == (15, 5)
    assert rest == 2
    assert len(ends[0][1]) == rest
    assert ends[1] == PYDMEDRESERVED_DLRETURNEDLASTINSTANCE


RAISING = """
from chunkdl.pydmed.lightdl import LightDL, get_default_constglobinf
from chunkdl.pydmed.utils.data import Dataset, Patient
from tests.pydmed.counting import NumberedCollector, NumberedLoader

loader = LightDL(Dataset("one", [Patient(0, {})]), NumberedLoader, NumberedCollector,
                 get_default_constglobinf(), 4, None)
loader.start()
loader.get()
raise ZeroDivisionError("the training failed")
"""


def test_a_program_that_raises_ends_and_leaves_nothing(
    processes_of_this_run: Processes, eventually: Callable[..., bool]
) -> None:
    """Without a call of pause_loading."""
    done = subprocess.run(
        [sys.executable, "-c", RAISING],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert "the training failed" in done.stderr
    assert eventually(lambda: not processes_of_this_run())


def test_descriptors_do_not_grow_with_the_patients(processes_of_this_run: Processes) -> None:
    """Of the trainer and of each worker: 2,000 patients need no more than 20."""

    def descriptors(patients: int) -> list[int]:
        with running(numbered_patients(patients)) as loader:
            batches(loader, 100)
            mine = len(os.listdir("/proc/self/fd"))
            return [mine, *sorted(process.num_fds() for process in processes_of_this_run())]

    assert descriptors(2000) == descriptors(20)


def test_an_idle_loader_with_hooks_uses_no_processor(
    processes_of_this_run: Processes, eventually: Callable[..., bool]
) -> None:
    """Of a trainer that does not ask, the processes come to rest, that of the schedule too."""

    def used() -> tuple[int, float]:
        wakes, seconds = 0, 0.0
        for process in processes_of_this_run():
            wakes += process.num_ctx_switches().voluntary
            seconds += sum(process.cpu_times()[:2])
        return wakes, seconds

    with running(numbered_patients(9), kind=NamingSchedule) as loader:
        batches(loader, 3)
        last = [(0, 0.0)]

        def at_rest() -> bool:
            before, last[0] = last[0], used()
            return before == last[0]

        assert eventually(lambda: at_rest() and at_rest() and at_rest(), 100)
