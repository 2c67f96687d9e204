"""What every loader does alike, wherever its batches come from: iteration, epochs and state.

A loader has one position in its stream. `next_batch` and `get` go on from it. An iteration begins
an epoch (``batches=n``) or a pass, unless a state was loaded since the last one: then
the first goes on in the middle. An endless stream goes on in any case.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from chunkdl.consumers.batches.batch import Batch, SmallChunks, Stand
from chunkdl.consumers.callers import Caller, find_caller, is_accelerate
from chunkdl.consumers.iteration import Iteration, Progress
from chunkdl.consumers.lifetime import Lifetime
from chunkdl.engine.settings.checks import checked_int
from chunkdl.errors import Closed, ConfigError, EndOfStream, GetTimeout, StateError
from chunkdl.system.awake_clock import PIECE_S, deadline_of

if TYPE_CHECKING:
    from chunkdl.consumers.batches.torch_batches import DatasetView

KEPT_STANDS = 8
"""Places in the stream that are remembered, for frameworks that take batches ahead."""


def check_batches(batches: int | None, *, finite: bool = False) -> None:
    """See that epochs may have so many batches.

    Args:
        batches: of an epoch; None: epochs have no length of their own.
        finite: the stream has passes, which have one.

    Raises:
        ConfigError: they may not.
    """
    if batches is None:
        return
    checked_int("batches", batches, 1)
    if finite:
        raise ConfigError(f"batches={batches!r}: a pass has its own end; leave it out")


class Loader(Lifetime):
    """A stream of batches.

    One thread at a time takes batches; the others wait for their turn. Everything else may be
    called from any thread and from a signal handler, also while a thread waits for a batch.

    Args:
        finite: the stream has passes, which end.
        batches: end an epoch of an endless stream after so many; None: it has none.
        shuffle: each pass has an order of its own; False: all have the same.
        tensors_only: batches have no columns but tensors.
    """

    def __init__(
        self,
        *,
        finite: bool,
        batches: int | None,
        shuffle: bool = False,
        tensors_only: bool = False,
    ) -> None:
        super().__init__()
        self._finite = finite
        self._tensors_only = tensors_only
        self._batches = batches
        self._shuffle = shuffle
        self._turn = threading.RLock()
        """Of the thread that takes batches."""
        self._goes_past_the_end = True
        """Where a state has left nothing of its pass, an iteration is the next one."""
        # What follows belongs to whoever has the turn.
        self._ended = False
        self._resumed = False
        self._taken = 0
        self._steps: int | None = None
        self._wanted_pass: int | None = None
        self._iteration: Progress | None = None
        self._taker: Progress | None = None
        """That took the last batch."""
        # Appended by whoever has the turn, read by anybody.
        self._stands: deque[Stand] = deque(maxlen=KEPT_STANDS)

    # ------------------------------------------------------------------- batches

    def get(self, timeout: float | None = None, *, copy: bool | None = None) -> Any:
        """The next batch in PyDmed's shape.

        Args:
            timeout: longest wait, seconds; None: as long as the service lives.
            copy: False gives arrays on the shared memory itself, which goes back when the last of
                them is dropped; keep fewer than there are slots. True gives a copy. None: no copy
                while at most half of the slots are held, else a copy, so that a loop that drops its
                batches pays nothing and one that keeps them never starves; always a copy where
                memory is page-locked for a GPU, and of a broadcast, whose memory others read.

        Returns:
            (x, patients, smallchunks): x is the column "image"; or what `collate_func` returns.

        Raises:
            GetTimeout: nothing came in time.
            EndOfStream: the epoch or the pass has delivered everything.
            ServiceDied, ServiceRefused, WorkerError, SlideError: the stream cannot go on.
            ConfigError: this is another process than the loader was made in.
            Closed: the loader was closed.
        """
        batch = self._next(timeout, copy=copy)
        if not isinstance(batch, Batch):
            return batch
        if "image" not in batch and batch.row_columns != ("data",):
            raise ConfigError(
                f"the SmallChunks have the columns {', '.join(batch.row_columns)}, and get() "
                "returns one called 'image'; call one so, or use next_batch()"
            )
        if "image" not in batch:
            raise ConfigError(
                f"the SmallChunks hold objects of class {type(batch['data'][0]).__name__}, which "
                "make no tensor; give a collate_func, or use next_batch()['data']"
            )
        return batch["image"], batch.patients, SmallChunks(batch)

    def next_batch(self, timeout: float | None = None, *, copy: bool | None = None) -> Any:
        """The next `Batch` with all its columns, or what `collate_func` returns; see `get`."""
        return self._next(timeout, copy=copy)

    def __next__(self) -> Any:
        return self.next_batch()

    def _next(self, timeout: float | None, *, copy: bool | None, of: Progress | None = None) -> Any:
        self._check_usable()
        if self._section.is_mine:
            raise ConfigError(
                "a signal handler asked for a batch in the middle of a step of the loader; have it "
                "set a flag, and ask in the loop"
            )
        with self._my_turn(timeout), self._waiting():
            if of is not None:
                self._begin(of)
            if self._ended or self._taken == self._batches:
                raise EndOfStream("the epoch or the pass has delivered all its batches")
            try:
                batch = self._take(timeout, copy=copy)
            except EndOfStream:
                self._ended, self._resumed = True, False
                if of is None or not of.resumed_at_the_end:
                    raise
                # The state was of the end of a pass, so this iteration is the next one.
                self._begin_anew()
                batch = self._take(timeout, copy=copy)
            self._resumed, self._taker = self._resumed and of is None, of
            return batch

    @property
    def _is_my_turn(self) -> bool:
        """Whether this thread is taking a batch: a signal handler has interrupted that."""
        # As `threading.Condition` asks it.
        return bool(self._turn._is_owned())  # type: ignore[attr-defined]

    @contextmanager
    def _my_turn(self, timeout: float | None) -> Iterator[None]:
        left = deadline_of(timeout)
        while not self._turn.acquire(timeout=(piece_s := left(PIECE_S))):
            if not piece_s:
                raise GetTimeout("another thread waits for a batch of this loader and was not done")
        try:
            yield
        finally:
            self._turn.release()
            self._section.catch_up()

    @abstractmethod
    def _take(self, timeout: float | None, *, copy: bool | None) -> Any:
        """The next batch; whoever calls has the turn. It has to call `_stands_at`.

        Raises:
            EndOfStream: the pass is over.
        """

    def _stands_at(self, stand: Stand, taken: int) -> None:
        """The loader stands there, after so many batches of the epoch or the pass."""
        self._taken = taken
        self._stands.append(stand)

    # ----------------------------------------------------------------- iteration

    def __iter__(self) -> Iterator[Any]:
        """Iterate over an epoch or a pass; see the top of this file."""
        self._check_usable()
        caller = find_caller()
        self._check_caller(caller)
        if (state := caller.state_left(self)) is not None:
            self.load_state_dict(state)
        return Iteration(lambda of: self._next(None, copy=None, of=of), caller)

    def __len__(self) -> int:
        """Batches of an epoch or a pass.

        Raises:
            TypeError: the stream is endless, or the pass was not seen to its end yet.
        """
        if (length := self.length) is None:
            raise TypeError(
                "the length of a pass is known once all its slides were looked at"
                if self._finite
                else "an endless stream has no length; give batches=n for epochs of n batches"
            )
        return length

    @property
    def length(self) -> int | None:
        """What `len` gives; None where it is not known."""
        return self._steps if self._batches is None else self._batches

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: object) -> NoReturn:
        raise ConfigError("a loader is a stream and has no items; iterate over it")

    @property
    def generator(self) -> NoReturn:
        """There is none; accelerate asks for it before it takes every n-th batch for each rank."""
        if is_accelerate():
            raise ConfigError(
                "accelerate cannot divide ready batches among processes; share one stream by "
                "LightDL.for_ddp and leave it out of accelerator.prepare: iterate over it, and "
                "move batches with batch.to(accelerator.device)"
            )
        raise AttributeError("a loader has no generator")

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration be that pass, counted from 0.

        With ``shuffle=True``, and without replacement, each pass has an order of its own;
        otherwise, and of an endless stream, the number changes nothing. A pass that is in the
        middle of, by a state that was loaded, goes on if it has this number.
        """
        self._check_usable()
        number = checked_int("epoch", epoch, 0)
        # Accelerate says at each iteration how many it has had itself, also after a resume.
        if not is_accelerate("__iter__"):
            self._wanted_pass = number

    def _begin(self, iteration: Progress) -> None:
        """The iteration takes its first batch, or is not the last one that has."""
        bounded = self._finite or self._batches is not None
        if iteration.begun:
            if bounded and self._iteration is not iteration:
                raise Closed(
                    "a later iteration over this loader has begun, and a loader has one position; "
                    "make a second loader to iterate twice at a time"
                )
            return
        if not self._resumed and len(self._stands) == 1:
            # A pass that is the same each time may begin where one was trained whole.
            iteration.caller.check_beginning(same=self._finite and not self._shuffle)
        iteration.begun = True
        self._iteration = iteration
        self._stands = deque(self._stands, maxlen=KEPT_STANDS + iteration.caller.shares)
        wanted, self._wanted_pass = self._wanted_pass, None
        used = not self._resumed and bool(self._taken or self._ended)
        if not self._finite:
            at_the_end = self._taken == self._batches
            if not self._resumed or at_the_end:
                self._taken = 0
        elif wanted is not None and (used or wanted != self._pass):
            self._begin_pass(wanted)
        elif self._resumed and not self._ended:
            iteration.resumed_at_the_end = self._goes_past_the_end
        elif used:
            self._begin_anew()
        self._ended = False

    def _begin_anew(self) -> None:
        self._begin_pass(self._pass + 1)

    def _begin_pass(self, number: int) -> None:
        """Have the next batch be the first of that pass; whoever calls has the turn."""
        self._check_process()
        self._next_pass(number)
        self._ended, self._taken = False, 0

    @property
    @abstractmethod
    def _pass(self) -> int:
        """Number of the present pass."""

    @abstractmethod
    def _next_pass(self, number: int) -> None:
        """Go to the beginning of that pass; whoever calls has the turn."""

    @property
    def pass_number(self) -> int:
        """Number of the present pass, from 0; of an endless stream 0."""
        return self._pass

    @property
    def is_finite(self) -> bool:
        """Whether the stream has passes, which end."""
        return self._finite

    @property
    def _last_stand(self) -> Stand:
        """The place after the last batch that was returned."""
        return self._stands[-1]

    def _check_caller(self, caller: Caller) -> None:
        """Refuse who would get wrong batches without a word.

        Raises:
            ConfigError: and what to do.
        """
        caller.check_dealing_out(tensors_only=self._tensors_only)

    def dataset_view(self) -> DatasetView:
        """This loader as a torch dataset: ``DataLoader(view, batch_size=None)``, and Lightning."""
        self._check_usable()
        try:
            from chunkdl.consumers.batches.torch_batches import DatasetView
        except ModuleNotFoundError as error:
            raise ConfigError("a torch dataset needs torch; install chunkdl[torch]") from error
        return DatasetView(self)

    # --------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the last batch that was returned; small, plain data.

        Its "epoch" is the number of the pass, its "epoch_batches" how many batches of an epoch of
        ``batches=n`` were returned, its "version" that of the format, and its "kind" says which
        loaders can go on from it.

        Where Lightning or accelerate iterates, which take a batch ahead: after the last one that
        they have handed on. `Batch.state` is the state after one batch.
        """
        self._check_process()
        stands = tuple(self._stands)
        taker = self._taker
        behind = 0 if taker is None else taker.held_back
        if behind >= len(stands):
            raise StateError(
                f"{behind} batches were taken ahead, and the states of {len(stands)} are known; "
                "save the `state` of the batch that the training has finished"
            )
        return stands[-1 - behind].to_dict()

    @property
    @abstractmethod
    def tables(self) -> dict[str, Any]:
        """What the columns ``slide_index`` and ``patient_index`` stand for.

        "slide" are the paths, "patient" the names, and each label its values, by patient or, where
        slides have it, by slide.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly after the batch that `state` was saved behind; all ranks from the same.

        The next iteration goes on in the middle of the epoch or the pass; where nothing is left of
        it, it is the next one. Ranks that share a stream have the same state after the same number
        of batches.

        Raises:
            StateError: it is of another stream, of another kind of loader, or of another version.
            ServiceRefused: other ranks of the group stand elsewhere.
            Closed: the loader was closed.
        """
        self._check_usable()
        with self._catching_up():
            self._load_state(state)

    @abstractmethod
    def _load_state(self, state: Mapping[str, Any]) -> None:
        """The same, of a loader that may be used."""

    def _goes_on_at(self, stand: Stand, taken: int) -> None:
        """A state was loaded; the loader stands there."""
        self._stands = deque(maxlen=KEPT_STANDS)
        self._iteration = self._taker = None
        self._ended, self._resumed = False, True
        self._stands_at(stand, taken)
