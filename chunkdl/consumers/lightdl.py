"""`LightDL`: batches of patches from whole-slide images, in a training loop.

It starts a service of its own (a coordinator with loaders and collectors), takes batches from it,
and ends it again: with `close()`, at the end of a ``with`` block, when it is collected, when the
program ends, and when the program is killed.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.shapes import Objects
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.annotations.use import Label, Regions, Roi
from chunkdl.consumers.batches.array_kinds import array_kind
from chunkdl.consumers.batches.arrays import ArraysName
from chunkdl.consumers.batches.batch import Batch, Stand
from chunkdl.consumers.batches.diversity import Footprints
from chunkdl.consumers.batches.embedded_batches import Assembled, Assembly
from chunkdl.consumers.callers import Caller
from chunkdl.consumers.finishing import Finish
from chunkdl.consumers.loader import Loader, check_batches
from chunkdl.consumers.own_engine import OwnEngine
from chunkdl.consumers.ranks import warn_of_equal_rows
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.engine.config import Edge, GridOrder, OnError, Order, RowSource
from chunkdl.engine.decisions.patient_choice import LOOK_AHEAD
from chunkdl.engine.embedded import EmbeddedEngine, Received
from chunkdl.engine.loader_statistics import Told
from chunkdl.engine.resume_state import ResumeState
from chunkdl.engine.settings.arguments import Arguments, Profile, Reader, Where
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import ConfigError, EndOfStream, GetTimeout
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.balance import Balance
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.policies.policy import Policy
from chunkdl.sampling.resolutions import Values
from chunkdl.slides.resolution import LevelPolicy
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.memory.notes import note_of, value_of
from chunkdl.transport.protocol.engine_messages import End
from chunkdl.transport.row_format import RowFormat

if TYPE_CHECKING:
    from chunkdl.consumers.shared import SharedDL

log = steady_logger("chunkdl")
user_log = steady_logger("chunkdl.user")


class LightDL(Loader):
    """Streams batches of SmallChunks from whole-slide images.

    The first parameters are PyDmed's, in its order; all parameters after the dataset are optional.
    Two loaders with equal dataset, settings and seed give the same batches, bit for bit, for any
    number of processes.

    Args:
        dataset: the patients and their slides.
        type_bigchunkloader, type_smallchunkcollector: your own classes, see
            `chunkdl.patches.hooks`; by default the built-in ones, which sample tissue.
        const_global_info: settings that your classes can read as `self.const_global_info`.
        batch_size: rows of a batch.
        tfms: callable that the collectors apply to the data of each SmallChunk (with the built-in
            classes a uint8 array, height × width × 3). Its results are stacked: they must be
            arrays, tensors, images or numbers of one shape and type, or dicts of these.
        collate_func: called in the training process with the list of SmallChunks (with their data)
            and `tfms`; `get`, `next_batch` and iterations return its result. The data of your
            classes may then be any objects.
        flag_enable_setgetcheckpoint: a load with your classes waits until earlier loads of the same
            patient have ended, so that it gets their checkpoints. False: it does not wait.
        smallchunk_size, bigchunk_size: side lengths of SmallChunk and BigChunk, in pixels of the
            wished resolution.
        level, mpp, downsample, magnification: the wished resolution; at most one of them, by
            default level 0. ``magnification="20x"`` is 0.5 microns per pixel, also for slides that
            state only the power of their objective.
            `mpp` and `downsample` may be several with weights, ``{0.25: 1, 0.5: 2}``, or a
            `Continuous` range: then one is drawn for each BigChunk.
        resolution_policy: what to do if no level matches: "error", "nearest", "floor", "ceil" or
            "resample" (the default for mpp and downsample); see `chunkdl.slides.resolution`.
        max_relative_deviation: how far a level may be from the wished resolution under "nearest",
            and a level 0 that is too coarse under "resample"; a share of it.
        num_bigchunks: BigChunks that are open at a time; more of them mix batches better and need
            more memory. With your classes at most one per patient.
        reuse: how often a pixel of a BigChunk is delivered on average; a higher value is faster
            and repeats more tissue.
        smallchunks_per_bigchunk: exact number, instead of `reuse`; with your classes 100 by
            default.
        schedule: a `chunkdl.Policy` that chooses the next patient; by default all in turn.
        tfms_in: where `tfms` runs: "collectors", or "consumer" for the training process.
        arrays: "torch"; or "numpy": columns are numpy arrays, and torch need not be installed.
        tensors_only: batches have only columns that are arrays, for frameworks that need this;
            ``slide_index`` and ``patient_index`` are indices into `tables`, which has the rest.
        tissue: a detector, its name ("otsu", "hsv", "clam", …), its name with parameters, or "none"
            to sample the whole slide.
        tissue_threshold: minimum share of tissue in a SmallChunk, 0 to 1.
        pixel_filter: which SmallChunks pass by their pixels: "midnight", a name with parameters, or
            an object such as `HsvShare` or `OwnFilter`; see `chunkdl.patches.filters`.
        annotations: folder with a file of annotations for each slide, or `OwnAnnotations`; by
            default those that the dataset names. See the page on annotations for all of these.
        annotation_reading: how files of annotations are read, `ReadingOptions`.
        region_names: other names for annotated classes, an empty one leaves a class out; or a list
            of those that count, in the order of their numbers.
        balance: how often slides come: "patient" (the default), "slide", ["grade", "patient"] or
            another list of labels and what is alike in their categories, or `Balance`.
        roi: "inside", "outside", "auto" or "ignore", or a `Roi` with classes and a share.
        regions: weights of the classes that SmallChunks are drawn from, or `Regions`.
        label_mask: each row has the class of each of its pixels.
        region_label: the column ``region`` has the class at the "centre", or the "largest" one.
        region_shares: each row has the share of each class.
        cells: each row has the objects whose centroid lies in it: "annotations", "detections" (of
            a program) or "all".
        reader: "auto", "tiff", "dicom" or "openslide".
        channels: which samples of a pixel become red, green and blue, such as (0, 1, 2), or (3,)
            for a grey image of one sample; needed if the file does not say it.
        window: (low, high): the values of 16-bit samples that become 0 and 255.
        icc: "srgb" converts colours with the profile in the file; None leaves them as stored.
        grid: one finite pass over a grid: each position with tissue exactly once.
        replacement: False: the positions of a grid in mixed order: `num_bigchunks` BigChunks are
            open at a time, patients have equal shares, and each position comes exactly once in
            every cycle of its slide.
        cycles: without replacement, how often each position comes in a pass; None (or "endless"):
            a stream without end, in which patients keep their shares.
        stride: distance of neighbouring grid positions, in target pixels; by default
            `smallchunk_size`. Less: they overlap; more: there are gaps.
        edge: "inside"; or "pad": where the last grid position does not reach the right or lower
            edge of a slide, there is one more, which overhangs. Its tissue share is that of the
            part in the slide, and what lies outside has the colour `edge_fill`.
        edge_fill: red, green and blue, 0 to 255; by default white.
        grid_order: "mixed": slides come in an order that the seed draws; "dataset": in the order of
            the dataset. Each slide comes window by window in reading order; `x` and `y` say where
            each row belongs.
        drop_last: leave out the short batch at the end of a pass.
        shuffle: slides come in a different order in each grid pass; False: all passes are equal.
        batches: number of batches of an epoch; each iteration over the endless stream gives as
            many.
        seed: of the plan.
        order: "strict"; or "relaxed": batches come as soon as they are ready, within a bounded
            window.
        on_error: "substitute": another region replaces one that cannot be read, or over which your
            code raised, up to a limit, and slides that cannot give the resolution are left out.
            "raise": these are errors. None: only slides that cannot be read are substituted.
            Nothing takes the place of a position of a grid: there an error of your code is always
            raised, and without replacement also a slide that cannot be read.
        memory_limit: shared memory for BigChunks and batches, in bytes or as text like "4GiB".
        batch_slots: number of batches in shared memory.
        num_loaders, num_collectors: numbers of processes; by default from the number of cores.
        mask_cache: folder for tissue masks and facts from slide headers; by default the user's
            cache folder.
        cpu_affinity: cores that the processes may use.
        stall_timeout: seconds after which a worker that reports nothing is replaced, and a
            coordinator that reports nothing is asked; if it does not answer for the same time
            again, it counts as dead.
        hook_timeout: maximum time of one call of your code, in seconds; by default unlimited.
        max_restarts: worker deaths that are tolerated within a minute, and between two batches.
        pin_memory: copy batches into page-locked memory; by default if CUDA is available.
        log_func: called with each line that your classes log; by default they go to Python's logger
            "chunkdl.user".

    Raises:
        ConfigError, DatasetError: an argument is wrong; nothing was started.
        ResolutionError: some slides cannot give the resolution (all are named), or no slide is
            left.
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
        *,
        collate_func: Callable[..., Any] | None = None,
        flag_enable_setgetcheckpoint: bool = True,
        smallchunk_size: int = 224,
        bigchunk_size: int = 2048,
        level: int | None = None,
        mpp: float | Mapping[float, float] | Values | None = None,
        downsample: float | Mapping[float, float] | Values | None = None,
        magnification: float | str | Mapping[Any, float] | None = None,
        resolution_policy: LevelPolicy | None = None,
        max_relative_deviation: float = 0.05,
        num_bigchunks: int = 32,
        reuse: float = 1.0,
        smallchunks_per_bigchunk: int | None = None,
        schedule: Policy | None = None,
        tfms_in: Where = "collectors",
        arrays: ArraysName = "torch",
        tensors_only: bool = False,
        tissue: str | TissueDetector | None = "otsu",
        tissue_threshold: float = 0.5,
        pixel_filter: str | Mapping[str, Any] | PixelFilter | None = None,
        annotations: str | os.PathLike[str] | OwnAnnotations | None = None,
        annotation_reading: Mapping[str, Any] | ReadingOptions | None = None,
        region_names: Mapping[str, str] | Sequence[str] | None = None,
        balance: str | Sequence[str] | Mapping[str, Any] | Balance | None = None,
        roi: str | Mapping[str, Any] | Roi = "ignore",
        regions: Mapping[str, Any] | Regions | None = None,
        label_mask: bool = False,
        region_label: Label = "centre",
        region_shares: bool = False,
        cells: Objects | None = None,
        reader: Reader = "auto",
        channels: Sequence[int] | None = None,
        window: Sequence[float] | None = None,
        icc: Profile | None = None,
        grid: bool = False,
        replacement: bool = True,
        cycles: int | str | None = 1,
        stride: int | None = None,
        edge: Edge = "inside",
        edge_fill: Sequence[int] = (255, 255, 255),
        grid_order: GridOrder = "mixed",
        drop_last: bool = False,
        shuffle: bool = False,
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
        kind = array_kind(arrays, pin=pin_memory)
        self.arguments = Arguments(
            batch_size=batch_size,
            smallchunk_size=smallchunk_size,
            bigchunk_size=bigchunk_size,
            level=level,
            mpp=mpp,
            downsample=downsample,
            magnification=magnification,
            resolution_policy=resolution_policy,
            max_relative_deviation=max_relative_deviation,
            num_bigchunks=num_bigchunks,
            reuse=reuse,
            smallchunks_per_bigchunk=smallchunks_per_bigchunk,
            tissue=tissue,
            tissue_threshold=tissue_threshold,
            pixel_filter=pixel_filter,
            annotations=annotations,
            annotation_reading=annotation_reading,
            region_names=region_names,
            balance=balance,
            roi=roi,
            regions=regions,
            label_mask=label_mask,
            region_label=region_label,
            region_shares=region_shares,
            cells=cells,
            reader=reader,
            channels=channels,
            window=window,
            icc=icc,
            grid=grid,
            replacement=replacement,
            cycles=cycles,
            stride=stride,
            edge=edge,
            edge_fill=edge_fill,
            grid_order=grid_order,
            drop_last=drop_last,
            shuffle=shuffle,
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
        check_batches(batches)
        self._config = configure(dataset, self.arguments)
        finite = self._config.stream.finite
        check_batches(batches, finite=finite)
        super().__init__(
            finite=finite,
            batches=batches,
            shuffle=shuffle or not replacement,
            tensors_only=tensors_only,
        )
        kind.know(LightDL)
        self._finish = Finish(
            kind,
            tfms,
            here=tfms_in == "consumer",
            collate=collate_func,
            plain=self._rows.are_crops,
            seed=self._config.stream.seed,
            tensors_only=tensors_only,
        )
        self._patients = list(dataset)
        self._cursor = Cursor.from_dict(self._config.cursor, self._config.plan_hash)
        self._log_func = log_func
        self._journal = self._new_journal()
        self._assembly = Assembly(
            self._config,
            self._patients,
            kind,
            images=tfms is None or self._rows.are_crops,
            tensors_only=tensors_only,
        )
        self._engine = OwnEngine(
            self._section, self._check_open, self._new_engine, self._forget_engine
        )
        self._may_share = True
        """Nobody has asked yet whether other ranks should have a part of the rows."""
        self._ready: Assembled | None = None
        """The next batch, put together and not given out yet."""
        self._astray = False
        """The service is beyond the next batch, or that was spoilt; it has to begin again."""
        self._halted = False
        """A policy has ended the stream, which has no next pass."""
        self._stands_at(self._cursor, 0)

    @classmethod
    def for_ddp(cls, dataset: Dataset, **arguments: Any) -> SharedDL:
        """One stream for the ranks of a training; see `chunkdl.consumers.ddp.for_ddp`."""
        from chunkdl.consumers.ddp import for_ddp

        return for_ddp(cls, dataset, arguments)

    @property
    def tables(self) -> dict[str, Any]:
        """See `Loader.tables`."""
        return self._assembly.tables.by_name()

    @property
    def _rows(self) -> RowSource:
        return self._config.stream.rows

    # ------------------------------------------------------------------- batches

    def _check_caller(self, caller: Caller) -> None:
        """See `Loader._check_caller`."""
        super()._check_caller(caller)
        if caller.shares > 1:
            # Accelerate reads in one process for all.
            self._may_share = False

    def _take(self, timeout: float | None, *, copy: bool | None) -> Any:
        left = deadline_of(timeout)
        if self._may_share:
            self._may_share = False
            warn_of_equal_rows()
        if self._halted:
            raise EndOfStream("the policy has ended the stream")
        while True:
            # Before it is looked: whoever is woken from here on does not wait.
            calls = self._engine.calls
            if (ready := self._next_here(copy=copy)) is not None:
                ready.begun = True
                batch = self._batch_of(ready)
                finished = self._finish(batch)
                if self._give_out(ready):
                    self._means.see(batch.footprints)
                    return finished
            elif timeout is not None and left(PIECE_S) == 0.0:
                raise GetTimeout(
                    "no batch came in time; the service is alive (loader.stats() shows what it "
                    "does). Raise the timeout, or look for slow storage"
                )
            else:
                self._engine.wait(left, calls)

    def _next_here(self, *, copy: bool | None) -> Assembled | None:
        """The next batch that has rows, if it is here.

        It stays the next one until it is given out: neither an interrupt nor an exception of the
        user's code loses it.
        """
        while True:
            ready = self._engine.use(lambda engine: self._look(engine, copy=copy))
            if not self._astray:
                return ready
            self._section.whole(self._begin_again)

    def _look(self, engine: EmbeddedEngine, *, copy: bool | None) -> Assembled | None:
        while self._ready is None:
            engine.hear()
            received = engine.first()
            if received is None:
                engine.nothing_came()
                return None
            if isinstance(received, End):
                self._halted = not self._finite
                self._steps = received.batches
                raise EndOfStream(f"the pass has delivered all its {received.batches} batches")
            if self._has_gap(received):
                log.warning("an interrupt has lost a batch; the service begins where it was")
                self._astray = True
                return None
            ready = self._assembly.assemble(engine, received, self._journal, copy=copy)
            if ready.columns is None:
                # Rows that could not be made are left out, at the end of a pass all of a batch.
                self._settle(engine, ready)
            else:
                self._ready = ready
        self._astray = self._ready.begun
        return self._ready

    def _has_gap(self, received: Received) -> bool:
        """Whether a batch before this one was lost."""
        run, cursor = self._config.run, self._cursor
        if run.order == "strict":
            return received.message.batch != cursor.next_batch
        return len(cursor.ahead) > 2 * run.batch_slots

    def _batch_of(self, ready: Assembled) -> Batch:
        names = () if ready.columns is None else ready.columns.row_columns
        number = ready.received.message.batch
        shows = Footprints.of(ready.records, self._config.stream.footprint_px)
        return Batch(ready.columns or {}, ready.patients, number, ready.late, names, (shows,))

    def _behind(self, ready: Assembled) -> Cursor:
        """The cursor behind a batch."""
        if ready.cursor is None:
            message = ready.received.message
            ready.taken = self._taken + (ready.columns is not None)
            ready.cursor = msgspec.structs.replace(
                self._cursor.delivered(message.batch),
                epoch_batches=None if self._batches is None else ready.taken,
                smallchunks_per_bigchunk=message.smallchunks_per_bigchunk,
                substitutions=message.substitutions,
            )
        return ready.cursor

    def _give_out(self, ready: Assembled) -> bool:
        """The batch goes to the user; False: another thread has closed or moved the loader."""
        with self._section.lock:
            engine = self._engine.running
            if self._ready is not ready or engine is None:
                return False
            self._settle(engine, ready)
            self._ready = None
            return True

    def _settle(self, engine: EmbeddedEngine, ready: Assembled) -> None:
        """Note that a batch was delivered; an interrupt may have this done twice."""
        message, cursor = ready.received.message, self._behind(ready)
        self._journal.delivered(message, ready.records, cursor)
        engine.took(ready.received)
        ready.hold.give_out(lent=ready.lent)
        if message.pass_batches >= 0:
            self._steps = message.pass_batches
        if (stand := ready.late.stand) is None:
            stand = ready.late.stand = self._journal.state(cursor)
        if self._stands[-1] is not stand:
            self._stands_at(stand, ready.taken)
        self._cursor = cursor

    @property
    def _pass(self) -> int:
        return self._cursor.epoch

    def _next_pass(self, number: int) -> None:
        in_turn = self._ended and number == self._cursor.epoch + 1
        self._section.whole(lambda: self._go_to_pass(number, in_turn=in_turn))

    def _go_to_pass(self, number: int, *, in_turn: bool) -> None:
        cursor = Cursor(plan_hash=self._cursor.plan_hash, seed=self._cursor.seed, epoch=number)
        if (engine := self._engine.running) is not None and in_turn:
            engine.next_epoch(number)
        else:
            # What is under way for the pass that was broken off goes with the processes.
            self._engine.end()
        self._cursor = cursor
        if self._engine.running is None:
            self._journal = self._new_journal(self._journal.row_format)
        self._stands_at(self._journal.state(cursor), 0)

    # --------------------------------------------------------------------- state

    def _load_state(self, state: Mapping[str, Any]) -> None:
        cursor = Cursor.from_dict(state, self._config.plan_hash)
        if self._is_for_later(lambda: self._load_state(state)):
            return
        self._section.whole(lambda: self._go_to(cursor))
        self._engine.wake()

    def _go_to(self, cursor: Cursor) -> None:
        self._engine.end()
        self._cursor = cursor
        self._journal = self._new_journal(self._journal.row_format)
        self._halted = False
        delivered = cursor.next_batch + len(cursor.ahead)
        taken = cursor.epoch_batches
        if self._batches is not None:
            taken = delivered % self._batches if taken is None else taken
        self._goes_on_at(self._journal.state(cursor), delivered if taken is None else taken)

    def _counters(self, timeout: float) -> Told:
        return self._engine.counters(timeout)

    def _ask_counters(self) -> None:
        self._engine.ask_counters()

    # --------------------------------------------------------------------- notes

    def send_message(self, patient: Patient, message: Any) -> None:
        """Leave a message for exactly the next load of a patient; a later one replaces it.

        Raises:
            ConfigError: it is not a patient of the dataset, or the classes are the built-in ones.
            PackingError: the message cannot be pickled, or is too large.
        """
        self._check_usable()
        index = self._index_of(patient)
        note = note_of(message, "a message")
        with self._catching_up():
            if not self._is_for_later(lambda: self._send_note(index, note)):
                self._send_note(index, note)

    def _send_note(self, index: int, note: bytes) -> None:
        with self._section.lock:
            self._journal.messages[index] = note
            self._journal.deterministic = False
            self._stands = deque(map(self._with_messages, self._stands), self._stands.maxlen)
            if self._engine.running is not None:
                self._engine.running.send_message(index, note)

    def _with_messages(self, stand: Stand) -> Stand:
        """The same place, with the messages that are under way now."""
        if not isinstance(stand, Cursor):
            return stand
        messages = {**stand.messages, **self._journal.messages}
        return msgspec.structs.replace(stand, messages=messages, deterministic=False)

    def get_checkpoint(self, patient: Patient) -> Any:
        """What the collectors of a patient have set last; None before that."""
        self._check_process()
        return value_of(self._journal.checkpoints.get(self._index_of(patient), b""))

    def _index_of(self, patient: Patient) -> int:
        if not self._rows.by_hooks:
            raise ConfigError("messages and checkpoints are for classes of your own")
        for index, other in enumerate(self._patients):
            if other == patient:
                return index
        raise ConfigError(f"{patient!r} is not a patient of this loader's dataset")

    # ------------------------------------------------------------------ lifetime

    def _start(self) -> None:
        """Start the processes, and wait until they are up."""
        if not self._section.is_mine:
            # Else a signal handler asks; what it has interrupted starts them.
            self._engine.wait_until_up()

    def _resume(self) -> None:
        """Start the processes again."""
        if not self._is_for_later(self._resume):
            self._engine.begin()

    def _pause(self) -> None:
        """End the processes and free their memory for now."""
        if not self._is_for_later(self._pause):
            self._section.whole(self._begin_again)
            self._engine.wake()

    def _begin_again(self) -> None:
        """End the service; the next one goes on behind the last batch that was given out."""
        cursor = self._journal.state(self._cursor)
        self._engine.end()
        self._cursor = cursor
        self._journal = self._new_journal(self._journal.row_format)

    def _close(self) -> None:
        """End all processes and free their memory."""
        # Whoever waits for a batch is told before anything is ended, which takes its time.
        self._engine.wake()
        if not self._is_for_later(self._close):
            self._section.whole(self._engine.end)

    def _new_engine(self) -> EmbeddedEngine:
        cursor = self._journal.state(self._cursor)
        known = self._journal.row_format
        config = dataclasses.replace(self._config, cursor=cursor.to_dict(), row_format=known)
        engine = EmbeddedEngine(config, self._journal)
        for patient, note in self._journal.messages.items():
            engine.send_message(patient, note)
        return engine

    def _forget_engine(self) -> None:
        self._ready = None
        self._astray = False
        self._since_s, self._waited_s = None, 0.0

    def _new_journal(self, known: RowFormat | None = None) -> ResumeState:
        recent = self._config.stream.num_bigchunks + LOOK_AHEAD
        log = user_log.info if self._log_func is None else self._log_func
        return ResumeState(self._cursor, recent, log, known)
