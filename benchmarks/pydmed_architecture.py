"""PyDmed's architecture as a baseline, written anew from its description; none of its code is here.

::

    trainer ◀──output queue── relay ◀──chunk queue── collector ◀──hand-over queue── loader

Each loaded patient has a collector process, which forks a loader that reads one BigChunk and ends.
All processes are forked. All queues are `multiprocessing.Queue`: whatever passes one is pickled,
written into a pipe, read and unpickled; a SmallChunk passes two of them and takes its whole patient
along. The bounds of the queues are asked for in a loop, without sleep. The start is serial. The
relay takes at most one SmallChunk of each collector in turn. After every interval it has one random
patient replaced, whose place gives nothing until the next region is read; while the output queue is
full it replaces nobody. Transforms and the stacking of a batch run in the trainer.

Left out are defects, and work that a plain stream does not need. All of it only helps the baseline:

- A replacement loses no SmallChunks: the old collector ends by itself and is emptied until it has.
- A patient whose region is still being read is not chosen to be replaced.
- The patients of the start are different ones where there are enough. Where none waits, one that
  is loaded is loaded again; PyDmed ends there.
- Every process has random numbers of its own, not those of the second in which it started.
- Errors of the hooks, and a dead loader, come out of `get`, which has a time limit.
- No process outlives the trainer. Loaders are reaped.
- Queues are made once, not for every load or every patient of the dataset; there are none for
  messages, checkpoints, states and logs. Nothing is kept of batches that were delivered.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from chunkdl.dataset.patients import Patient
from chunkdl.errors import Closed, Failure, GetTimeout, WorkerDied, WorkerError
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl_workers.process import die_with_parent

NEVER_LOADED_WEIGHT = 1e7
"""Weight of a patient that was never loaded, where one loaded n times has 1 / (1 + n)."""
KILL_S = 10.0
"""What killed processes may take to be gone."""

ExtractBigChunk = Callable[[Patient], BigChunk]
ExtractSmallChunk = Callable[[int, BigChunk], SmallChunk | None]
Transform = Callable[[npt.NDArray[np.uint8]], torch.Tensor]

_FORK = multiprocessing.get_context("fork")


# ---- The trainer


class PydmedArchitecture:
    """Random patches of loaded patients; a context manager that starts and closes.

    Args:
        dataset: the patients.
        extract_bigchunk: reads a region of a patient; runs in the loader.
        extract_smallchunk: cuts a patch, given how often it was called for this region before;
            None for nothing. Runs in the collector.
        batch_size: SmallChunks of a batch.
        tfms: makes a tensor of the data of one SmallChunk; runs in the trainer.
        num_bigchunkloaders: patients loaded at once.
        maxlength_queue_smallchunk: SmallChunks that a collector keeps ready.
        maxlength_queue_lightdl: SmallChunks in the output queue at which the relay waits.
        interval_resched_s: seconds from one replacement to the next.
    """

    def __init__(
        self,
        dataset: Sequence[Patient],
        extract_bigchunk: ExtractBigChunk,
        extract_smallchunk: ExtractSmallChunk,
        *,
        batch_size: int,
        tfms: Transform,
        num_bigchunkloaders: int = 10,
        maxlength_queue_smallchunk: int = 100,
        maxlength_queue_lightdl: int = 10_000,
        interval_resched_s: float = 10.0,
    ) -> None:
        self._batch_size, self._tfms = batch_size, tfms
        self._taken: list[SmallChunk] = []
        self._closed = False
        self._output: Queue[SmallChunk | Failure] = _FORK.Queue()
        self._loads = _FORK.Value(ctypes.c_int64, 0)
        # Every process below holds the writing end; it is at its end when all of them are gone.
        self._gone, self._held = _FORK.Pipe(duplex=False)
        work = _Work(extract_bigchunk, extract_smallchunk, maxlength_queue_smallchunk, self._loads)
        lanes = [
            _Lane(_FORK.Queue(), _FORK.Queue(), _FORK.RawValue(ctypes.c_bool, False))
            for _ in range(num_bigchunkloaders)
        ]
        relay = _Relay(
            list(dataset), work, lanes, self._output, maxlength_queue_lightdl, interval_resched_s
        )
        self._relay = _FORK.Process(target=relay.run, args=(os.getpid(),), name="relay")

    def start(self) -> None:
        """Fork the relay, which forks the others one after another; call it once."""
        self._relay.start()
        self._held.close()

    def get(self, timeout_s: float) -> tuple[torch.Tensor, list[Patient], list[SmallChunk]]:
        """The next batch; asks in a loop until it is there.

        Args:
            timeout_s: after this, what has come stays for the next call.

        Returns:
            The stacked tensors, the patient of each, and the SmallChunks without their data.

        Raises:
            GetTimeout: too few SmallChunks came in time.
            ChunkdlError: a hook raised or a process died; the remote traceback is the cause.
            Closed: after `close`.
        """
        if self._closed:
            raise Closed("the loader was closed; make another one")
        deadline = time.monotonic() + timeout_s
        while len(self._taken) < self._batch_size:
            if self._output.qsize() == 0 and time.monotonic() < deadline:
                continue
            try:
                chunk = self._output.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise GetTimeout(
                    f"{len(self._taken)} of {self._batch_size} SmallChunks came within "
                    f"{timeout_s} s; {self.loads} BigChunks were loaded so far; the relay "
                    + ("runs" if self._relay.is_alive() else f"ended: {self._relay.exitcode}")
                ) from None
            if isinstance(chunk, Failure):
                raise chunk.to_error()
            self._taken.append(chunk)
        chunks, self._taken = self._taken, []
        x = torch.stack([self._tfms(chunk.data) for chunk in chunks])
        for chunk in chunks:
            chunk.data = None
        return x, [chunk.patient for chunk in chunks], chunks

    @property
    def loads(self) -> int:
        """BigChunks that were read so far."""
        # Not under its lock: a loader that was killed may have held it.
        return int(self._loads.get_obj().value)

    def close(self) -> None:
        """Kill every process below and wait until they are gone; again does nothing.

        Raises:
            WorkerError: a killed process did not end.
        """
        if self._closed or self._relay.pid is None:
            return
        self._closed = True
        # The others die with the relay, whatever they are doing.
        self._relay.kill()
        self._relay.join()
        if not self._gone.poll(KILL_S):
            raise WorkerError(f"a process still runs {KILL_S:.0f} s after it was killed")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- The relay


@dataclass(frozen=True, slots=True)
class _Work:
    """What every collector and loader is given."""

    extract_bigchunk: ExtractBigChunk
    extract_smallchunk: ExtractSmallChunk
    maxlength_queue_smallchunk: int
    loads: Any


@dataclass(frozen=True, slots=True)
class _Lane:
    """What one collector after another shares with its loader and the relay.

    Attributes:
        handover: from the loader to the collector.
        chunks: from the collector to the relay.
        retired: a shared bool by which the relay ends the collector.
    """

    handover: Queue[BigChunk | Failure]
    chunks: Queue[SmallChunk | Failure]
    retired: Any


@dataclass(slots=True)
class _Loaded:
    """A patient in its lane; `served` once anything came of it."""

    patient: Patient
    lane: _Lane
    collector: ForkProcess
    served: bool = False


@dataclass(slots=True)
class _Relay:
    """Carries SmallChunks from all collectors into the output queue, and replaces patients."""

    patients: list[Patient]
    work: _Work
    lanes: list[_Lane]
    output: Queue[SmallChunk | Failure]
    maxlength_queue_lightdl: int
    interval_resched_s: float

    def run(self, trainer: int) -> None:
        """The relay process; runs until it is killed."""
        die_with_parent(trainer)
        with _failures_into(self.output):
            times_loaded = dict.fromkeys(self.patients, 0)
            first = itertools.cycle(random.sample(self.patients, len(self.patients)))
            loaded = []
            for lane, patient in zip(self.lanes, first, strict=False):
                loaded.append(self._load(patient, lane))
                times_loaded[patient] += 1
                _wait_for_first(lane.chunks, loaded[-1].collector)
            replaced_s = time.monotonic()
            while True:
                while self.output.qsize() >= self.maxlength_queue_lightdl:
                    pass
                for one in loaded:
                    self._take_one(one)
                if time.monotonic() - replaced_s > self.interval_resched_s:
                    replaced_s = time.monotonic()
                    self._replace_one(loaded, times_loaded)

    def _take_one(self, one: _Loaded) -> None:
        if not one.lane.chunks.empty():
            self.output.put(one.lane.chunks.get())
            one.served = True

    def _replace_one(self, loaded: list[_Loaded], times_loaded: dict[Patient, int]) -> None:
        candidates = [index for index, one in enumerate(loaded) if one.served]
        if not candidates:
            return
        index = random.choice(candidates)
        here = {one.patient for one in loaded}
        waiting = [patient for patient in self.patients if patient not in here] or self.patients
        times = [times_loaded[patient] for patient in waiting]
        weights = [1 / (1 + count) if count else NEVER_LOADED_WEIGHT for count in times]
        patient = random.choices(waiting, weights)[0]
        self._retire(loaded[index])
        loaded[index] = self._load(patient, loaded[index].lane)
        times_loaded[patient] += 1

    def _load(self, patient: Patient, lane: _Lane) -> _Loaded:
        lane.retired.value = False
        collector = _FORK.Process(
            target=_collect, args=(os.getpid(), patient, self.work, lane), name="collector"
        )
        collector.start()
        return _Loaded(patient, lane, collector)

    def _retire(self, one: _Loaded) -> None:
        one.lane.retired.value = True
        # The collector ends when the last of its queue is in the pipe.
        while one.collector.is_alive() or not one.lane.chunks.empty():
            self._take_one(one)
        one.collector.join()


# ---- The pair of processes of a patient


def _collect(relay: int, patient: Patient, work: _Work, lane: _Lane) -> None:
    """A collector process: has the region read, then cuts patches until it is retired."""
    die_with_parent(relay)
    np.random.seed()
    with _failures_into(lane.chunks):
        loader = _FORK.Process(
            target=_load, args=(os.getpid(), patient, work, lane.handover), name="loader"
        )
        loader.start()
        _wait_for_first(lane.handover, loader)
        bigchunk = lane.handover.get()
        loader.join()
        if isinstance(bigchunk, Failure):
            lane.chunks.put(bigchunk)
            return
        call_count = 0
        while not lane.retired.value:
            if lane.chunks.qsize() < work.maxlength_queue_smallchunk:
                smallchunk = work.extract_smallchunk(call_count, bigchunk)
                call_count += 1
                if smallchunk is not None:
                    lane.chunks.put(smallchunk)


def _load(
    collector: int, patient: Patient, work: _Work, handover: Queue[BigChunk | Failure]
) -> None:
    """A loader process: reads one region, and ends when all of it is in the pipe."""
    die_with_parent(collector)
    np.random.seed()
    with _failures_into(handover):
        bigchunk = work.extract_bigchunk(patient)
        with work.loads.get_lock():
            work.loads.value += 1
        handover.put(bigchunk)


def _wait_for_first(queue: Queue[Any], writer: ForkProcess) -> None:
    """Spin until there is something in the queue.

    Raises:
        WorkerDied: the only writer of the queue is dead.
    """
    while queue.empty():
        if not writer.is_alive() and queue.empty():
            raise WorkerDied(
                f"a {writer.name} ended with {writer.exitcode} before it delivered anything"
            )


@contextmanager
def _failures_into(queue: Queue[Any]) -> Iterator[None]:
    """Errors travel where their reader waits for something else."""
    try:
        yield
    except Exception as error:
        queue.put(Failure.of(error))
