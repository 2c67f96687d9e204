"""`LightDL`: batches of patches from whole-slide images, in a training loop.

It starts a service of its own (a coordinator with loaders and collectors), takes batches from it,
and ends it again: with `close()`, at the end of a ``with`` block, when it is collected, when the
program ends, and when the program is killed.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from chunkdl.arguments import Arguments
from chunkdl.assembly import Assembly
from chunkdl.chunks import Batch, SmallChunks
from chunkdl.config import OnError, Order
from chunkdl.consumer import Consumer, Received
from chunkdl.coordination.places import LOOK_AHEAD
from chunkdl.errors import Closed, ConfigError, EndOfStream
from chunkdl.journal import Journal
from chunkdl.notes import note_of, value_of
from chunkdl.patients import Dataset, Patient
from chunkdl.plan.cursor import Cursor
from chunkdl.plan.policies import Policy
from chunkdl.protocol.messages import End
from chunkdl.settings import configure
from chunkdl.slides.resolution import Policy as ResolutionPolicy
from chunkdl.statistics import LoaderStatistics
from chunkdl.tensors import (
    DatasetView,
    cuda_is_there,
    transformed,
)
from chunkdl.tissue.detectors import TissueDetector

if TYPE_CHECKING:
    from chunkdl.shared import SharedDL

STATISTICS_TIMEOUT_S = 30.0


class LightDL:
    """Streams batches of SmallChunks out of whole-slide images.

    The first eleven parameters are PyDmed's, in its order; everything after the dataset is
    optional. Two loaders with equal dataset, plan arguments and seed give the same batches bit for
    bit, whatever the number of processes.

    Args:
        dataset: the patients and their slides.
        type_bigchunkloader, type_smallchunkcollector: the user's classes, see `chunkdl.hooks`; the
            built-in ones, which sample tissue, without.
        const_global_info: settings that the user's classes find as `self.const_global_info`.
        batch_size: rows of a batch.
        tfms: callable applied to the data of each SmallChunk (a uint8 array, height × width × 3, of
            the built-in classes) in the collectors; its results are stacked. They must be arrays,
            tensors, images or numbers of one shape and type.
        collate_func: called in the training process with the list of SmallChunks (with their data)
            and `tfms`; what it returns is what `get` returns. The data of the user's classes may
            then be any objects.
        flag_enable_setgetcheckpoint: a load of the user's classes waits until those before it of
            the same patient are over, so that their checkpoints arrive. False: it does not wait.
        flag_grabqueue_onunsched, fname_logfile, flag_enable_sendgetmessage: hold PyDmed's places;
            nothing is lost at a replacement, the log goes to Python's logging, and messages cost
            nothing.
        smallchunk_size, bigchunk_size: sides of SmallChunk and BigChunk, pixels of the wished
            resolution.
        level, mpp, downsample: the wished resolution; at most one of them, level 0 without.
        resolution_policy: what to do where no level matches: "error", "nearest", "floor", "ceil" or
            "resample" (the default for mpp and downsample); see `chunkdl.slides.resolution`.
        num_bigchunks: BigChunks that are open at a time; more mix better and take more memory. Of
            the user's classes at most one a patient.
        reuse: SmallChunk pixels delivered per pixel decoded, about; higher is faster and repeats
            more tissue.
        smallchunks_per_bigchunk: instead of `reuse`, the exact number; 100 of the user's classes.
        schedule: which patient is loaded next, a `chunkdl.Policy`; all in turn without.
        tfms_in: "collectors", or "consumer": `tfms` runs in the training process.
        tissue: "otsu", "hsv", a detector, or "none" for the whole slide.
        tissue_threshold: least share of tissue in a SmallChunk, 0 to 1.
        reader: "auto", "tiff", "dicom" or "openslide".
        channels: which samples of a pixel become red, green and blue, such as (0, 1, 2), or (3,)
            for a grey image of one; needed where the file does not say it.
        window: (low, high): the values of samples of 16 bits that become 0 and 255.
        icc: "srgb" converts colours by the profile in the file; None leaves them as stored.
        grid: a finite pass over the non-overlapping grid: each position with tissue exactly once.
        drop_last: of a grid pass, leave out the short batch at the end.
        batches: end the iteration after so many batches; the next iteration goes on behind them.
        seed: of the plan.
        order: "strict", or "relaxed": batches as they are ready, the same set within a bounded
            window.
        on_error: "substitute" another region for one that cannot be read or over which the user's
            code raised, within a budget, and leave out slides that cannot give the resolution; or
            "raise". None: substitute for slides that cannot be read, raise the rest.
        memory_limit: for BigChunks and batches in shared memory, bytes or a text like "4GiB".
        batch_slots: batches in shared memory.
        num_loaders, num_collectors: processes; from the number of cores by default.
        mask_cache: folder of the tissue mask cache and of what headers said; the user's cache
            folder by default.
        cpu_affinity: cores that the processes may use.
        stall_timeout: seconds after which a worker that is silent over its work is replaced, and
            a coordinator that is silent is asked; without an answer for as long again it is dead.
        hook_timeout: seconds that one call of the user's code may take; none without.
        max_restarts: worker deaths within a minute, and between two batches, that are made good.
        pin_memory: copy batches into page-locked memory; by default where CUDA is there.
        log_func: takes what the user's classes log; Python's logger "chunkdl.user" without.

    Raises:
        ConfigError, DatasetError: an argument is wrong; nothing was started.
        ResolutionError: slides cannot give the resolution, all of them are named; or none is left.
        SlideError: no slide can be opened, or a given tissue mask does not fit its slide.
    """

    def __init__(
        self,
        dataset: Dataset,
        type_bigchunkloader: type[Any] | None = None,
        type_smallchunkcollector: type[Any] | None = None,
        const_global_info: dict[str, Any] | None = None,
        batch_size: int = 64,
        tfms: Callable[[Any], Any] | None = None,
        flag_grabqueue_onunsched: bool = True,
        collate_func: Callable[..., Any] | None = None,
        fname_logfile: str | None = None,
        flag_enable_sendgetmessage: bool = True,
        flag_enable_setgetcheckpoint: bool = True,
        *,
        smallchunk_size: int = 224,
        bigchunk_size: int = 2048,
        level: int | None = None,
        mpp: float | None = None,
        downsample: float | None = None,
        resolution_policy: ResolutionPolicy | None = None,
        num_bigchunks: int = 32,
        reuse: float = 1.0,
        smallchunks_per_bigchunk: int | None = None,
        schedule: Policy | None = None,
        tfms_in: str = "collectors",
        tissue: str | TissueDetector | None = "otsu",
        tissue_threshold: float = 0.5,
        reader: str = "auto",
        channels: Sequence[int] | None = None,
        window: Sequence[float] | None = None,
        icc: str | None = None,
        grid: bool = False,
        drop_last: bool = False,
        batches: int | None = None,
        seed: int = 0,
        order: Order = "strict",
        on_error: OnError | None = None,
        memory_limit: int | str = "4GiB",
        batch_slots: int = 8,
        num_loaders: int | None = None,
        num_collectors: int | None = None,
        mask_cache: str | os.PathLike[str] | None = None,
        cpu_affinity: Sequence[int] | None = None,
        stall_timeout: float = 120.0,
        hook_timeout: float | None = None,
        max_restarts: int = 20,
        pin_memory: bool | None = None,
        log_func: Callable[[str], None] | None = None,
    ) -> None:
        if batches is not None and (grid or batches < 1):
            raise ConfigError(
                f"batches={batches!r} must be at least 1, and a grid pass has its own end"
            )
        self.arguments = Arguments(
            batch_size=batch_size,
            smallchunk_size=smallchunk_size,
            bigchunk_size=bigchunk_size,
            level=level,
            mpp=mpp,
            downsample=downsample,
            resolution_policy=resolution_policy,
            num_bigchunks=num_bigchunks,
            reuse=reuse,
            smallchunks_per_bigchunk=smallchunks_per_bigchunk,
            tissue=tissue,
            tissue_threshold=tissue_threshold,
            reader=reader,
            channels=channels,
            window=window,
            icc=icc,
            grid=grid,
            drop_last=drop_last,
            seed=seed,
            order=order,
            on_error=on_error,
            num_loaders=num_loaders,
            num_collectors=num_collectors,
            memory_limit=memory_limit,
            batch_slots=batch_slots,
            mask_cache=mask_cache,
            cpu_affinity=cpu_affinity,
            stall_timeout=stall_timeout,
            hook_timeout=hook_timeout,
            max_restarts=max_restarts,
            bigchunkloader=type_bigchunkloader,
            smallchunkcollector=type_smallchunkcollector,
            const_global_info=const_global_info,
            tfms=tfms,
            tfms_in=tfms_in,
            collate_func=collate_func,
            schedule=schedule,
            checkpoints=flag_enable_setgetcheckpoint,
        )
        """What the stream is made from, with the defaults filled in."""
        self._config = configure(dataset, self.arguments)
        self._tfms = tfms
        self._tfms_here = tfms is not None and tfms_in == "consumer"
        self._collate = collate_func
        self._batches = batches
        self._patients = list(dataset)
        self._cursor = Cursor.from_dict(self._config.cursor, self._config.plan_hash)
        self._log_func = log_func
        self._journal = self._new_journal()
        self._assembly = Assembly(
            self._config,
            self._patients,
            images=tfms is None or self._rows == "plain",
            pin=cuda_is_there() if pin_memory is None else pin_memory,
        )
        self._lock = threading.RLock()
        self._consumer: Consumer | None = None
        self._closed = False
        self._end_at = batches
        self._ended = False
        self._asked_since: float | None = None
        self._waited_s = 0.0

    @classmethod
    def for_ddp(cls, dataset: Dataset, **arguments: Any) -> SharedDL:
        """One stream for the ranks of a distributed training; see `chunkdl.ddp.for_ddp`."""
        from chunkdl.ddp import for_ddp

        return for_ddp(cls, dataset, arguments)

    @property
    def copies(self) -> int:
        """Batches that were copied out of shared memory."""
        return self._assembly.copies

    @property
    def _rows(self) -> str:
        return self._config.stream.rows

    # ------------------------------------------------------------------- batches

    def get(self, timeout: float | None = None, *, copy: bool | None = None) -> Any:
        """The next batch in PyDmed's shape.

        Args:
            timeout: longest wait, seconds; None: as long as the service lives.
            copy: False gives tensors on the shared memory itself, which goes back to the loaders
                when the last of them is dropped; keep fewer than `batch_slots` of them. True gives
                a copy. None: no copy while at most half of the batch slots are held, else a copy,
                so that a loop that drops its batches pays nothing and one that keeps them never
                starves; always a copy where memory is page-locked for a GPU.

        Returns:
            (x, patients, smallchunks): x is a uint8 tensor (B, 3, H, W) in channels_last order, or
            the stacked results of `tfms`; or whatever `collate_func` returns.

        Raises:
            GetTimeout: nothing came in time.
            EndOfStream: the finite stream has delivered everything.
            ServiceDied, WorkerError, SlideError: the stream cannot go on; the message says why.
            Closed: the loader was closed.
        """
        batch = self.next_batch(timeout, copy=copy)
        smallchunks = SmallChunks(batch)
        if self._collate is None and not self._tfms_here:
            if "image" not in batch:
                raise ConfigError(
                    f"the SmallChunks hold objects of class {type(batch['data'][0]).__name__}, "
                    "which make no tensor; give a collate_func, or use next_batch()['data']"
                )
            return batch["image"], batch.patients, smallchunks
        chunks = list(smallchunks)
        if self._rows == "plain":
            for chunk, row in zip(chunks, batch["image"].permute(0, 2, 3, 1).numpy(), strict=True):
                chunk.data = row
        if self._collate is not None:
            return self._collate(chunks, self._tfms)
        return transformed([chunk.data for chunk in chunks], self._tfms), batch.patients, chunks

    def next_batch(self, timeout: float | None = None, *, copy: bool | None = None) -> Batch:
        """The next batch with all its columns; arguments and errors as for `get`."""
        with self._lock:
            if self._end_at is not None and self._delivered() >= self._end_at:
                self._ended = True
            if self._ended:
                raise EndOfStream("the stream has delivered all its batches")
            while True:
                received = self._receive(timeout)
                message = received.message
                batch, records = self._assembly.assemble(
                    self._running(), received, self._journal, copy=copy
                )
                self._cursor = msgspec.structs.replace(
                    self._cursor.delivered(message.batch),
                    smallchunks_per_bigchunk=message.smallchunks_per_bigchunk,
                    substitutions=message.substitutions,
                )
                self._journal.delivered(message, records, self._cursor)
                # Rows that could not be made are left out, at the end of a pass all of a batch.
                if batch is not None:
                    return batch

    def _receive(self, timeout: float | None) -> Received:
        asked = time.monotonic()
        consumer = self._running()
        self._asked_since = asked if self._asked_since is None else self._asked_since
        received = consumer.next(timeout)
        self._waited_s += time.monotonic() - asked
        if isinstance(received, End):
            self._ended = True
            raise EndOfStream(f"the pass has delivered all its {received.batches} batches")
        return received

    def __iter__(self) -> Iterator[Batch]:
        """Iterate; after the end of a finite stream, its next pass or its next `batches`."""
        with self._lock:
            if self._ended:
                self._next_pass()
        return self

    def __next__(self) -> Batch:
        return self.next_batch()

    def _next_pass(self) -> None:
        if self._batches is not None:
            self._ended = False
            self._end_at = self._delivered() + self._batches
            return
        if not self._config.stream.grid:
            # Its policy has ended it; there is no next pass.
            return
        self._ended = False
        self._cursor = Cursor(
            plan_hash=self._cursor.plan_hash, seed=self._cursor.seed, epoch=self._cursor.epoch + 1
        )
        if self._consumer is not None:
            self._consumer.next_epoch(self._cursor.epoch)

    def _delivered(self) -> int:
        return self._cursor.next_batch + len(self._cursor.ahead)

    def dataset_view(self) -> DatasetView:
        """This loader as a torch dataset: ``DataLoader(view, batch_size=None)``, and Lightning."""
        return DatasetView(self)

    # --------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: after the last batch that was returned. Small, plain data."""
        with self._lock:
            return self._journal.state(self._cursor).to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly after the batch that `state` was saved behind.

        Raises:
            StateError: it belongs to another stream.
        """
        cursor = Cursor.from_dict(state, self._config.plan_hash)
        with self._lock:
            self._stop_service()
            self._cursor = cursor
            self._journal = self._new_journal()
            self._ended = False
            if self._batches is not None:
                self._end_at = (self._delivered() // self._batches + 1) * self._batches

    def stats(self) -> LoaderStatistics:
        """What the loader has done since its service started."""
        with self._lock:
            counted = self._running().statistics(STATISTICS_TIMEOUT_S)
            since = self._asked_since
            elapsed = 0.0 if since is None else time.monotonic() - since
            return LoaderStatistics.of(counted, elapsed, self._waited_s)

    # --------------------------------------------------------------------- notes

    def send_message(self, patient: Patient, message: Any) -> None:
        """Leave a message for exactly the next load of a patient; a later one replaces it.

        Raises:
            ConfigError: it is no patient of the dataset, or the classes are the built-in ones.
            PackingError: the message cannot be pickled, or is too large.
        """
        index = self._index_of(patient)
        note = note_of(message, "a message")
        with self._lock:
            self._journal.messages[index] = note
            self._journal.deterministic = False
            if self._consumer is not None:
                self._consumer.send_message(index, note)

    def get_checkpoint(self, patient: Patient) -> Any:
        """What the collectors of a patient have set last; None before that."""
        with self._lock:
            return value_of(self._journal.checkpoints.get(self._index_of(patient), b""))

    def _index_of(self, patient: Patient) -> int:
        if self._rows != "hooks":
            raise ConfigError("messages and checkpoints are for classes of your own")
        for index, other in enumerate(self._patients):
            if other == patient:
                return index
        raise ConfigError(f"{patient!r} is no patient of this loader's dataset")

    # ------------------------------------------------------------------ lifetime

    def start(self) -> None:
        """Start the processes now instead of with the first batch."""
        with self._lock:
            self._running()

    def pause(self) -> None:
        """End the processes and free their memory for now; the next batch goes on exactly."""
        with self._lock:
            cursor = self._journal.state(self._cursor)
            self._stop_service()
            self._cursor = cursor
            self._journal = self._new_journal()

    def close(self) -> None:
        """End all processes and free their memory; closing twice is no error."""
        with self._lock:
            self._closed = True
            self._stop_service()

    def _running(self) -> Consumer:
        if self._closed:
            raise Closed("the loader was closed")
        if self._consumer is None:
            cursor = self._journal.state(self._cursor)
            config = dataclasses.replace(self._config, cursor=cursor.to_dict())
            self._consumer = Consumer(config, self._journal)
            for patient, note in self._journal.messages.items():
                self._consumer.send_message(patient, note)
        return self._consumer

    def _new_journal(self) -> Journal:
        recent = self._config.stream.num_bigchunks + LOOK_AHEAD
        if self._log_func is None:
            return Journal(self._cursor, recent)
        return Journal(self._cursor, recent, self._log_func)

    def _stop_service(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._asked_since = None
        self._waited_s = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
