"""The life of a loader: whose it is, whether it goes on, what it does meanwhile, and its end."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, Self

from chunkdl.consumers.batches.diversity import Means
from chunkdl.engine.loader_statistics import LoaderStatistics, Told
from chunkdl.errors import Closed, ConfigError
from chunkdl.system.sections import Section

ANSWER_S = 0.02
"""For a service to answer `stats`."""
ASK_S = 1.0
"""How old what it has told may become while batches are taken."""


class Lifetime(ABC):
    """What belongs to one process, and to it until it is closed.

    Once it is closed, what says where it stood still answers (`state_dict`, `tables`, lengths and
    numbers, `close`); whatever would go on raises `Closed`.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._section = Section()
        """Held for moments, never over a wait."""
        self._closed = False
        # What follows belongs to whoever takes batches.
        self._since_s: float | None = None
        """When a batch was first asked for."""
        self._waited_s = 0.0
        """How long the loop has waited for batches since then."""
        self._asked_s = 0.0
        """When the service was last asked for its counters on the way."""
        self._means = Means()
        """Of the batches that were given out."""

    def start(self) -> None:
        """Have the service be up now instead of with the first batch, and wait for that."""
        self._check_usable()
        with self._catching_up():
            self._start()

    def pause(self) -> None:
        """Take nothing for now: no rows, and as little of the machine as can be.

        It is over with `resume`, or when the next batch is asked for; nothing is lost by it.
        """
        self._check_usable()
        with self._catching_up():
            self._pause()

    def resume(self) -> None:
        """Go on after `pause`, before the next batch is asked for; waits for nothing."""
        self._check_usable()
        with self._catching_up():
            self._resume()

    def close(self) -> None:
        """End everything that belongs to it, and wait for that; closing twice is not an error.

        Who waits for a batch in another thread is told at once that the loader is closed.
        """
        if os.getpid() != self._pid:
            return  # a forked child; nothing here is its own
        self._closed = True
        with self._catching_up():
            self._close()

    @abstractmethod
    def _start(self) -> None:
        """See `start`."""

    @abstractmethod
    def _pause(self) -> None:
        """See `pause`."""

    @abstractmethod
    def _resume(self) -> None:
        """See `resume`."""

    @abstractmethod
    def _close(self) -> None:
        """See `close`; may be called again."""

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            "a loader cannot be copied or sent to another process: it reads in processes of its "
            "own. Use num_workers=0 in a DataLoader, and make a loader where it is used"
        )

    def stats(self, timeout: float = ANSWER_S) -> LoaderStatistics:
        """What the loader has done since its service started.

        It is what the service has told last. It is asked now, and once a second while batches are
        taken; one that does not answer in time is not waited for. `LoaderStatistics.age_s` says
        how old the numbers are: about a second at most while batches come.

        Of a group of a service it counts for all members together; what an engine does again that
        replaces one that was lost counts again.

        Args:
            timeout: longest wait for an answer, seconds. A signal handler that interrupts a step of
                the loader gets none.

        Raises:
            ServiceDied, ServiceRefused, WorkerError, SlideError: the stream cannot go on.
            Closed: the loader was closed.
        """
        self._check_usable()
        with self._catching_up():
            told = self._counters(timeout)
        now_s = time.monotonic()
        elapsed_s = 0.0 if self._since_s is None else now_s - self._since_s
        return LoaderStatistics.of(told, self._means.mean, now_s, elapsed_s, self._waited_s)

    @abstractmethod
    def _counters(self, timeout: float) -> Told:
        """What the service has counted; it is asked, and waited for so long, seconds."""

    @abstractmethod
    def _ask_counters(self) -> None:
        """Ask the service, and wait for nothing."""

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """The training loop waits meanwhile; it is counted."""
        asked_s = time.monotonic()
        self._since_s = asked_s if self._since_s is None else self._since_s
        if asked_s - self._asked_s >= ASK_S:
            self._asked_s = asked_s
            self._ask_counters()
        try:
            yield
        finally:
            self._has_waited(asked_s)

    def _has_waited(self, asked_s: float) -> None:
        """The wait for a batch that was asked for then is over."""
        if self._since_s is None:
            # Meanwhile another engine has begun, whose counters count from 0.
            self._since_s, self._waited_s = asked_s, 0.0
        self._waited_s += time.monotonic() - asked_s

    @contextmanager
    def _catching_up(self) -> Iterator[None]:
        """What signal handlers have left for later in the middle of this is done after it."""
        try:
            yield
        finally:
            self._section.catch_up()

    def _is_for_later(self, act: Callable[[], object]) -> bool:
        """Whether a signal handler is in the middle of a step, and `act` is done after that."""
        if not self._section.is_mine:
            return False
        self._section.for_later(act)
        return True

    def _check_usable(self) -> None:
        """See that the loader can go on.

        Raises:
            ConfigError: this is another process than it was made in.
            Closed: it was closed.
        """
        self._check_process()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(
                "the loader was closed; to go on, make another and load the state of this one"
            )

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ConfigError(
                f"this loader belongs to process {self._pid}, and this is {os.getpid()}, forked "
                "from it (a DataLoader's worker? then num_workers=0: the loader reads in processes "
                "of its own); make a loader in the process that uses it"
            )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # Nobody else would: there is no `__exit__` without this.
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
