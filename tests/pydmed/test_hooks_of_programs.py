"""What PyDmed's programs do in their hooks: say "no more", change their patient, return another."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.errors import ConfigError, HookError
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.pydmed.extensions.wsi import SlidingWindowSmallChunkCollector
from chunkdl.pydmed.lightdl import (
    BigChunkLoader,
    LightDL,
    SmallChunkCollector,
    get_default_constglobinf,
)
from tests.pydmed.counting import running


class Loader(BigChunkLoader):
    """A BigChunk with the patient that `chosen` makes, under a number that no other has."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        info = {"load": int(self.rng.integers(2**62)), "checkpoint": self.get_checkpoint()}
        return BigChunk(np.arange(4.0), info, self.chosen())

    def chosen(self) -> Any:
        return self.patient


class Collector(SmallChunkCollector):
    """SmallChunks of the BigChunk's patient."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        info = {"call": call_count}
        return SmallChunk(
            bigchunk.data, info, bigchunk.dict_info_of_bigchunk, self.chosen(bigchunk)
        )

    def chosen(self, bigchunk: Any) -> Any:
        return bigchunk.patient


def people(count: int, **records: Any) -> Dataset:
    return Dataset("people", [Patient(n, copy.deepcopy(records)) for n in range(count)])


def chunks_of(
    dataset: Dataset, loader: type[Any], collector: type[Any], batches: int, **more: Any
) -> list[SmallChunk]:
    """The SmallChunks of the first batches; those of a batch and its patients belong together."""
    chunks = []
    with running(
        dataset, type_bigchunkloader=loader, type_smallchunkcollector=collector, **more
    ) as running_loader:
        for _ in range(batches):
            _, patients, of_batch = running_loader.get()
            assert all(a is chunk.patient for a, chunk in zip(patients, of_batch, strict=True))
            chunks += of_batch
    return chunks


# ---- None.


class Thirty(Collector):
    """No longer willing after thirty calls."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        return (
            super().extract_smallchunk(call_count, bigchunk, message) if call_count < 30 else None
        )


def test_none_for_ever_is_no_longer_willing() -> None:
    """The next BigChunk of the patient takes over; every call of each is delivered."""
    chunks = chunks_of(people(3), Loader, Thirty, 150, given=100)
    calls = defaultdict(list)
    for chunk in chunks:
        calls[chunk.dict_info_of_bigchunk["load"]].append(chunk.dict_info_of_smallchunk["call"])
    assert len(calls) > 9
    assert all(of_load == list(range(len(of_load))) for of_load in calls.values())
    assert max(map(len, calls.values())) == 30


class Picky(Collector):
    """Takes one place in twenty."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        if np.random.random() > 0.05:
            return None
        return super().extract_smallchunk(call_count, bigchunk, message)


def test_none_now_and_then_is_asked_again() -> None:
    """A BigChunk of which many places are refused gives as many SmallChunks as any other."""
    chunks = chunks_of(people(3), Loader, Picky, 40, given=10)
    loads: dict[int, int] = defaultdict(int)
    for chunk in chunks:
        loads[chunk.dict_info_of_bigchunk["load"]] += 1
    assert sorted(loads.values())[3:-3] == [10] * (len(loads) - 6)


class Never(Collector):
    """Gives nothing."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        return None


def test_a_patient_of_which_nothing_comes_is_an_error() -> None:
    """Instead of a wait without end."""
    with pytest.raises(HookError, match=r"returned None 500 times .*Never.extract_smallchunk"):
        chunks_of(people(3), Loader, Never, 1)


class SevenOfEach(Collector):
    """Counts in the checkpoint, and is no longer willing after seven of its patient."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        count = self.get_checkpoint() or 0
        if count >= 7 and self.patient.int_uniqueid < 2:
            return None
        self.set_checkpoint(count + 1)
        return super().extract_smallchunk(call_count, bigchunk, message)


def test_a_quota_of_a_patient_over_all_its_loads() -> None:
    """Where nothing comes of a load and the checkpoint says that much came before, others go on."""
    chunks = chunks_of(people(5), Loader, SevenOfEach, 60, given=4)
    counts = np.bincount([chunk.patient.int_uniqueid for chunk in chunks])
    assert counts[:2].tolist() == [7, 7]
    assert counts[2:].min() > 20


# ---- The patient that a hook returns.


class WithoutMask(Loader):
    """As PyDmed's author: the masks do not travel, a fact is noted."""

    def chosen(self) -> Patient:
        patient = copy.deepcopy(self.patient)
        for key in patient.dict_records:
            if key.startswith("precomputed"):
                patient.dict_records[key] = None
        del patient.dict_records["old"]
        patient.dict_records["side"] = {"left": np.arange(3)}
        return patient


def test_the_patient_of_a_bigchunk_arrives() -> None:
    """With what was added, without what was taken out; the dataset's stays as it is."""
    dataset = people(2, precomputed_mask=np.ones((600, 600)), old=1, kept=[Record("/", "a", {})])
    for chunk in chunks_of(dataset, WithoutMask, Collector, 6):
        records: Any = chunk.patient.dict_records
        assert list(records) == ["precomputed_mask", "kept", "side"]
        assert records["precomputed_mask"] is None
        assert records["side"]["left"].tolist() == [0, 1, 2]
        assert records["kept"][0].relativedir == "a"
        assert chunk.patient in list(dataset)
        assert set(chunk.dict_info_of_smallchunk) == {"call"}
    assert all(
        list(patient.dict_records) == ["precomputed_mask", "old", "kept"] for patient in dataset
    )


class Noting(Collector):
    """Notes something of each SmallChunk in its own patient, beside a mask that stays."""

    def chosen(self, bigchunk: Any) -> Patient:
        records: Any = self.patient.dict_records
        records.setdefault("calls", []).append(len(records))
        self.patient.name = "noted"
        return self.patient


def test_facts_that_a_collector_notes_arrive_with_each_smallchunk() -> None:
    """Though its patient has a mask that is far larger than what may travel; a load notes for
    itself."""
    dataset = people(3, mask=np.ones((1000, 1000)))
    for chunk in chunks_of(dataset, Loader, Noting, 12):
        calls: Any = chunk.patient.dict_records["calls"]
        assert len(calls) <= 4
        assert len(calls) == chunk.dict_info_of_smallchunk["call"] + 1 or len(calls) < 4
        assert chunk.patient.name == "noted"
        assert (
            chunk.patient.dict_records["mask"]
            is dataset[chunk.patient.int_uniqueid].dict_records["mask"]
        )


def test_a_patient_that_was_left_alone_is_the_one_of_the_dataset() -> None:
    """Nothing travels, and nothing is copied here."""
    dataset = people(2, mask=np.ones((600, 600)), record=Record("/", "b", {"x": [1.5, None]}))
    for chunk in chunks_of(dataset, Loader, Collector, 6):
        assert any(chunk.patient is patient for patient in dataset)


class Growing(Collector):
    """Adds something large."""

    def chosen(self, bigchunk: Any) -> Patient:
        self.patient.dict_records["heat map"] = np.ones((100, 100))
        return self.patient


class Another(Collector):
    """Returns one that is not of the dataset."""

    def chosen(self, bigchunk: Any) -> Any:
        return [None, Patient(100 + self.patient.int_uniqueid, {"made": 1})][bigchunk.data.size % 2]


def test_what_cannot_travel_is_refused_and_what_is_another_patient_arrives() -> None:
    """The error says what to do."""
    with pytest.raises(HookError, match=r"changed in its patient; put large things into its data"):
        chunks_of(people(2), Loader, Growing, 1)

    class Odd(Loader):
        def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
            bigchunk = super().extract_bigchunk(last_message_fromroot)
            bigchunk.data = np.arange(5.0)
            return bigchunk

    got = {chunk.patient for chunk in chunks_of(people(2), Odd, Another, 6)}
    assert {patient.int_uniqueid for patient in got} == {100, 101}
    assert {chunk.patient for chunk in chunks_of(people(2), Loader, Another, 2)} == {None}


# ---- Each load has its own.


class Changing(Loader):
    """Changes all that its patient has."""

    def chosen(self) -> Patient:
        records: Any = self.patient.dict_records
        assert records["mask"].all(), "another load has been here"
        assert records["list"] == [1]
        assert records["record"].dict_infos == {"a": {}}
        records["mask"][:] = 0
        records["list"].append(2)
        records["record"].dict_infos["a"]["seen"] = True
        records["handle"] = threading.Lock()
        records.pop("popped").pop()
        return Patient(self.patient.int_uniqueid, {})


class ChangingToo(Collector):
    """Changes its own; what the loader did is not there."""

    def chosen(self, bigchunk: Any) -> Any:
        records: Any = self.patient.dict_records
        first = "mask" in records
        if first:
            assert records.pop("mask").all()
            assert records["list"] == [1]
            assert records.pop("popped") == [5]
            records["list"].append(self.rng.random())
        assert len(records["list"]) == 2
        return bigchunk.patient


def test_what_a_hook_changes_is_gone_with_the_load() -> None:
    """Popped, written into, grown at any depth; in loader and collector; also a lock, which no
    process could send. Twenty loads of each patient find it as it was."""
    dataset = people(
        3, mask=np.ones((400, 400)), list=[1], record=Record("/", "c", {"a": {}}), popped=[5]
    )
    chunks = chunks_of(dataset, Changing, ChangingToo, 120)
    assert len({chunk.dict_info_of_bigchunk["load"] for chunk in chunks}) > 50
    assert all(chunk.patient.dict_records == {} for chunk in chunks)
    assert len(dataset[0].dict_records) == 4


# ---- Attributes.


class AskingLoader(Loader):
    """Says what it has."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        bigchunk = super().extract_bigchunk(last_message_fromroot)
        assert self.queue_bigchunk.empty()
        assert self.queue_bigchunk.qsize() == 0
        assert self.old_checkpoint == self.get_checkpoint()
        assert self.last_message_from_root == last_message_fromroot
        assert self.is_alive()
        assert (self.exitcode, self.daemon) == (None, False)
        bigchunk.dict_info_of_bigchunk["loader"] = [self.name, self.pid]
        return bigchunk


class AskingCollector(Collector):
    """Says what it has."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> Any:
        self.set_checkpoint(["of", self.patient.int_uniqueid])
        chunk = super().extract_smallchunk(call_count, bigchunk, message)
        assert self.old_checkpoint in (None, ["of", self.patient.int_uniqueid])
        assert self.last_message_from_root == message
        for queue in (self.queue_smallchunks, self.queue_checkpoint):
            assert queue.empty()
            try:
                queue.put_nowait(chunk)
            except ConfigError as error:
                chunk.dict_info_of_smallchunk["told"] = str(error)
        chunk.dict_info_of_smallchunk["kind"] = self.type_bigchunkloader.__name__
        chunk.dict_info_of_smallchunk["collector"] = [self.name, self.pid]
        return chunk


def test_hooks_have_the_attributes_of_pydmed() -> None:
    """Each with what it says; a queue takes nothing, and says what to do."""
    chunks = chunks_of(people(3), AskingLoader, AskingCollector, 12)
    for chunk in chunks:
        small, big = chunk.dict_info_of_smallchunk, chunk.dict_info_of_bigchunk
        number = chunk.patient.int_uniqueid
        assert small["kind"] == "AskingLoader"
        assert small["told"].endswith("queues: call set_checkpoint")
        assert big["loader"][0] == f"AskingLoader-{number}"
        assert small["collector"][0] == f"AskingCollector-{number}"
        assert big["loader"][1] != small["collector"][1]


def test_a_loader_has_the_attributes_of_a_process() -> None:
    """Before, while and after; what would wait forever or be a wrong answer is refused."""
    dataset = people(2)
    with running(
        dataset, type_bigchunkloader=Loader, type_smallchunkcollector=AskingCollector
    ) as dl:
        other = LightDL(dataset, Loader, Collector, get_default_constglobinf(), 2, None)
        assert not other.is_alive()
        assert (other.exitcode, other.pid, other.daemon) == (None, None, False)
        assert other.dict_patient_to_schedcount == dict.fromkeys(dataset, 0)
        assert other.dict_patient_to_checkpoint == dict.fromkeys(dataset)
        assert list(other.active_subprocesses) == []
        assert other.collate_func is LightDL.default_collate
        assert other.name != dl.name
        off = LightDL(dataset, Loader, Collector, None, 2, None, flag_enable_setgetcheckpoint=False)
        assert off.dict_patient_to_checkpoint is None
        for _ in range(20):
            dl.get()
        assert dl.is_alive()
        assert dl.dict_patient_to_checkpoint == {
            patient: ["of", patient.int_uniqueid] for patient in dataset
        }
        with pytest.raises(ConfigError, match=r"join\(\) would wait forever"):
            dl.join()
        with pytest.raises(ConfigError, match=r"only inside schedule\(\)"):
            _ = dl.dict_patient_to_schedcount
        with pytest.raises(ConfigError, match=r"call get\(\) of the loader"):
            dl.queue_lightdl.get_nowait()
        dl.terminate()
        dl.join()
        assert (dl.is_alive(), dl.is_dl_running(), dl.exitcode) == (False, False, 0)


def test_a_sliding_window_collector_has_its_transform() -> None:
    """As an attribute, which a subclass may set, and the mode that the settings say."""
    settings: dict[str, Any] = {"pdmreserved_tfms_onsmallchunkcollection": abs}
    collector = SlidingWindowSmallChunkCollector(Patient(0, {}), const_global_info=settings)
    assert collector.tfms_onsmallchunkcollection is abs
    assert collector.mode_trainortest == "test"
