"""PyDmed's `lightdl`: its constants, its classes, and its loader over `chunkdl.LightDL`."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from chunkdl.consumers.batches.batch import SmallChunks
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.errors import Closed, ConfigError, EndOfStream
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.patches.hooks import EXHAUSTED
from chunkdl.pydmed import star
from chunkdl.pydmed.constglobinf import get_default_constglobinf
from chunkdl.pydmed.hooks import BigChunkLoader, NoQueue, SmallChunkCollector
from chunkdl.pydmed.process import AsProcess
from chunkdl.pydmed.reserved import PYDMEDRESERVED_DLRETURNEDLASTINSTANCE, PYDMEDRESERVED_HALTDL
from chunkdl.pydmed.returned import as_returned
from chunkdl.pydmed.schedules import AsksSchedule, OverriddenSchedule
from chunkdl.sampling.policies.in_turn import NeverLoadedFirst
from chunkdl.sampling.policies.policy import Policy
from chunkdl.system.steady_log import steady_logger

if TYPE_CHECKING:
    from chunkdl.consumers.lightdl import LightDL as Engine

__all__ = [
    "EXHAUSTED",
    "PYDMEDRESERVED_DLRETURNEDLASTINSTANCE",
    "PYDMEDRESERVED_HALTDL",
    "BigChunk",
    "BigChunkLoader",
    "LightDL",
    "SmallChunk",
    "SmallChunkCollector",
    "get_default_constglobinf",
    *star.LIGHTDL,
]

__getattr__ = star.importer(__name__, star.LIGHTDL)

MOST_FOR_VISUALIZATION = 20_000
"""SmallChunks that are remembered for `visualize`; older ones are forgotten."""
SMALLCHUNKS_OF_UNBOUNDED_QUEUE = 100

Visualize = Callable[[Patient, list[SmallChunk]], Any]

log = steady_logger("chunkdl.user")


def _as_they_are(list_smallchunks: list[SmallChunk], tfms: object) -> list[SmallChunk]:
    return list_smallchunks


class DeliveryQueue(NoQueue):
    """What PyDmed's programs ask of `lightdl.queue_lightdl`: whether there is something left."""

    def __init__(self, count: Callable[[], int]) -> None:
        super().__init__("call get() of the loader")
        self._count = count

    def qsize(self) -> int:
        """SmallChunks that wait to be delivered, about."""
        return self._count()

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self.qsize() == 0


class LightDL(AsProcess, AsksSchedule):
    """PyDmed's loader.

    Args:
        dataset, type_bigchunkloader, type_smallchunkcollector, const_global_info, batch_size, tfms,
            flag_grabqueue_onunsched, collate_func, fname_logfile, flag_enable_sendgetmessage,
            flag_enable_setgetcheckpoint: PyDmed's, in its order. `flag_grabqueue_onunsched` and
            `flag_enable_sendgetmessage` have no effect: nothing is lost at a replacement, and
            messages cost nothing.
        more: further arguments of `chunkdl.LightDL`, such as `seed`, `memory_limit`,
            `num_loaders`, `smallchunks_per_bigchunk`, `on_error` or `tfms_in`.
    """

    def __init__(
        self,
        dataset: Dataset,
        type_bigchunkloader: type[Any],
        type_smallchunkcollector: type[Any],
        const_global_info: dict[str, Any] | None,
        batch_size: int,
        tfms: Callable[[Any], Any] | None,
        flag_grabqueue_onunsched: bool = True,
        collate_func: Callable[..., Any] | None = None,
        fname_logfile: str | os.PathLike[str] | None = None,
        flag_enable_sendgetmessage: bool = True,
        flag_enable_setgetcheckpoint: bool = True,
        **more: Any,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.type_bigchunkloader = type_bigchunkloader
        self.type_smallchunkcollector = type_smallchunkcollector
        self.const_global_info = const_global_info or get_default_constglobinf()
        self.batch_size = batch_size
        self.tfms = tfms
        self.flag_grabqueue_onunsched = flag_grabqueue_onunsched
        self.collate_func = LightDL.default_collate if collate_func is None else collate_func
        self.fname_logfile = fname_logfile
        self.flag_enable_sendgetmessage = flag_enable_sendgetmessage
        self.flag_enable_setgetcheckpoint = flag_enable_setgetcheckpoint
        self.list_smallchunksforvis: list[SmallChunk] = []
        self.queue_lightdl = DeliveryQueue(self._waiting)
        self._more = more
        self._engine: Engine | None = None
        self._ended = False
        self._left: list[SmallChunk] = []
        self._before: tuple[dict[str, Any] | None, int] = None, 0
        self._skip = 0
        self._early: dict[Patient, Any] = {}
        self._logfile: TextIO | None = None

    # ------------------------------------------------------------------ lifetime

    def start(self) -> None:
        """Start the processes; starting twice is not an error.

        Raises:
            Closed: the loading was paused, which is for good.
            ConfigError: an argument is wrong.
        """
        if self._paused:
            raise Closed("pause_loading() has ended this loader for good; make a new one")
        if self._engine is not None:
            return
        engine = self._new_engine()
        try:
            engine.start()
        except BaseException:
            engine.close()
            raise
        self._engine, self._started = engine, True
        for patient, message in self._early.items():
            engine.send_message(patient, message)
        self._early.clear()

    def pause_loading(self) -> None:
        """End the loading for good and free everything; doing it twice is not an error."""
        super().pause_loading()
        if self._engine is not None:
            self._engine.close()
        if self._logfile is not None:
            self._logfile.close()
            self._logfile = None

    def pause(self) -> None:
        """End the processes for now; the next `get` goes on exactly where it stands."""
        self._running().pause()

    def resume(self) -> None:
        """Start the processes again now instead of with the next `get`."""
        self._running().resume()

    def is_dl_running(self) -> bool:
        """Whether it was started, was not paused, and has something left to deliver."""
        return self._engine is not None and not self._paused and not self._ended

    def _running(self) -> Engine:
        if self._paused:
            raise Closed("pause_loading() has ended this loader for good; make a new one")
        if self._engine is None:
            raise ConfigError("call start() before get()")
        return self._engine

    # -------------------------------------------------------------------- getting

    def get(self) -> Any:
        """What the collate function makes of the next `batch_size` SmallChunks.

        Fewer only at the end; after that, and whenever it is called again, the string
        `PYDMEDRESERVED_DLRETURNEDLASTINSTANCE`.

        Raises:
            ChunkdlError: the stream cannot go on; the message says why.
        """
        engine, stacked = self._running(), None
        while len(self._left) < self.batch_size and not self._ended:
            # What is received and not returned must not be lost to a state that is saved now.
            before = engine.state_dict() if self._left else None
            try:
                batch = engine.next_batch()
            except EndOfStream:
                self._ended = True
                break
            chunks = batch if isinstance(batch, list) else SmallChunks(batch)
            received = [as_returned(chunk) for chunk in chunks]
            self._before = before, len(received)
            received, self._skip = received[self._skip :], 0
            if not self._left and len(received) == self.batch_size and batch is not chunks:
                stacked = batch.get("image")
            self._left += received
        chunks, self._left = self._left[: self.batch_size], self._left[self.batch_size :]
        if not chunks:
            return PYDMEDRESERVED_DLRETURNEDLASTINSTANCE
        self._remember(chunks)
        collate = self._collate()
        if collate is not None:
            return collate(chunks, self.tfms)
        if stacked is None:
            return self.default_collate(chunks, None)
        return stacked, [chunk.patient for chunk in chunks], chunks

    def _collate(self) -> Callable[..., Any] | None:
        """The user's collate function, None for the default."""
        if self.collate_func is not LightDL.default_collate:
            return self.collate_func
        overridden = type(self).default_collate is not LightDL.default_collate
        return self.default_collate if overridden else None

    @staticmethod
    def default_collate(
        list_smallchunks: list[SmallChunk], tfms: Callable[[Any], Any] | None
    ) -> Any:
        """(stacked tensor, patients, SmallChunks) of what `tfms` makes of each SmallChunk's data.

        The SmallChunks keep their data.
        """
        from chunkdl.consumers.batches.torch_batches import transformed

        stacked = transformed([chunk.data for chunk in list_smallchunks], tfms)
        return stacked, [chunk.patient for chunk in list_smallchunks], list_smallchunks

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, with all checkpoints; see `chunkdl.LightDL.state_dict`."""
        state, received = self._before
        if not self._left or state is None:
            return self._running().state_dict()
        return {**state, "returned": received - len(self._left)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was saved behind."""
        state = dict(state)
        self._skip = state.pop("returned", 0)
        self._running().load_state_dict(state)
        self._ended, self._left = False, []

    # ------------------------------------------------------------------- messages

    def send_message(self, patient: Patient, message: Any) -> None:
        """Leave a message for the next load of a patient; a later one replaces it."""
        if self._engine is None:
            self._early[patient] = message
        else:
            self._running().send_message(patient, message)

    def get_checkpoint(self, patient: Patient) -> Any:
        """What the collectors of a patient have set last; None before that."""
        return self._running().get_checkpoint(patient)

    def log(self, str_input: str) -> None:
        """Write a line into the log file, or to the logger "chunkdl.user" where there is none."""
        if self.fname_logfile is None:
            log.info("%s", str_input)
            return
        if self._logfile is None:
            self._logfile = open(self.fname_logfile, "a", encoding="utf-8")  # noqa: SIM115
        self._logfile.write(str_input if str_input.endswith("\n") else f"{str_input}\n")

    def flush_log(self) -> None:
        """Bring what was logged to the disk."""
        if self._logfile is not None:
            self._logfile.flush()

    def visualize(self, func_visualize_one_patient: Visualize) -> None:
        """Call a function with each patient of the dataset and its SmallChunks that were returned.

        The SmallChunks have no data; the last 20,000 are remembered. Works after the end too.
        """
        of_patient: dict[Patient, list[SmallChunk]] = {patient: [] for patient in self.dataset}
        for chunk in self.list_smallchunksforvis:
            of_patient[chunk.patient].append(chunk)
        for patient, chunks in of_patient.items():
            func_visualize_one_patient(patient, chunks)

    def _remember(self, chunks: Iterable[SmallChunk]) -> None:
        for chunk in chunks:
            small, big = chunk.dict_info_of_smallchunk, chunk.dict_info_of_bigchunk
            self.list_smallchunksforvis.append(SmallChunk(None, small, big, chunk.patient))
        del self.list_smallchunksforvis[:-MOST_FOR_VISUALIZATION]

    # ------------------------------------------------------------------- schedule

    def initial_schedule(self) -> Sequence[Patient]:
        """Override this: the patients that are loaded first. Runs in the scheduler process."""
        waiting = self.get_list_waitingpatients()
        return random.sample(waiting, min(len(waiting), self._places()))

    def schedule(self) -> Any:
        """Override this: (patient to remove, patient to load), whenever a BigChunk is used up.

        Only whom to load has an effect. (None, None) means not now,
        `PYDMEDRESERVED_HALTDL` ends the loading. Runs in the scheduler process, where the three
        helpers below have answers; `self` is a copy that was made at the start.
        """
        return self._looking().answer_of(NeverLoadedFirst())

    @property
    def dict_patient_to_checkpoint(self) -> dict[Patient, Any] | None:
        """What the collectors of each patient have set last, in the training process; None where
        checkpoints are off.

        Raises:
            ConfigError: a schedule asks; a collector tells it something with `set_status`.
        """
        if not self.flag_enable_setgetcheckpoint:
            return None
        if self._view is not None:
            raise ConfigError(
                "checkpoints are not available in the process in which schedule() runs; call "
                "set_status() in the collector, and read it from active_subprocesses"
            )
        if self._engine is None:
            return dict.fromkeys(self.dataset)
        return {patient: self.get_checkpoint(patient) for patient in self.dataset}

    def policy(self) -> Policy:
        """The policy behind this loader: the user's methods where they are overridden."""
        kind = type(self)
        overridden = (
            kind.schedule is not LightDL.schedule
            or kind.initial_schedule is not LightDL.initial_schedule
        )
        return OverriddenSchedule(self, list(self.dataset)) if overridden else NeverLoadedFirst()

    # --------------------------------------------------------------------- engine

    def _places(self) -> int:
        return int(self.const_global_info.get("num_bigchunkloaders", 10))

    def _new_engine(self) -> Engine:
        # It brings torch, which the workers that import this module for a user's class never need.
        from chunkdl.consumers.lightdl import LightDL as Engine

        length = self.const_global_info.get("maxlength_queue_smallchunk", math.inf)
        arguments: dict[str, Any] = {
            "num_bigchunks": self._places(),
            "smallchunks_per_bigchunk": (
                int(length) if math.isfinite(length) else SMALLCHUNKS_OF_UNBOUNDED_QUEUE
            ),
            "schedule": self.policy(),
            "cpu_affinity": self._cores(),
            "log_func": self.log,
            **self._more,
        }
        return Engine(
            self.dataset,
            type_bigchunkloader=self.type_bigchunkloader,
            type_smallchunkcollector=self.type_smallchunkcollector,
            const_global_info=self.const_global_info,
            batch_size=self.batch_size,
            tfms=self.tfms,
            # The user's is called with what batches of several loads are put together to.
            collate_func=None if self._collate() is None else _as_they_are,
            flag_enable_setgetcheckpoint=self.flag_enable_setgetcheckpoint,
            **arguments,
        )

    def _cores(self) -> list[int] | None:
        """The cores that "core-assignment" names and this machine has; None for all."""
        named: set[int] = set()
        for text in (self.const_global_info.get("core-assignment") or {}).values():
            for part in str(text or "").split(","):
                if part.strip():
                    first, _, last = part.partition("-")
                    named.update(range(int(first), int(last or first) + 1))
        return sorted(named & os.sched_getaffinity(0)) or None

    def _waiting(self) -> int:
        if self._engine is None or self._paused or self._ended:
            return len(self._left)
        return len(self._left) + self._engine.stats().batches_ready * self.batch_size

    def __getstate__(self) -> dict[str, Any]:
        """What the scheduler process gets of the user's loader: all but the engine."""
        state = self.__dict__.copy()
        for name in ("_engine", "_logfile", "queue_lightdl", "collate_func", "tfms"):
            state[name] = None
        state["list_smallchunksforvis"] = []
        return state
