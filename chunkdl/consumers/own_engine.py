"""The engine that a loader has for itself: started when it is needed, waited for, asked, ended."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from chunkdl.engine.embedded import EmbeddedEngine
from chunkdl.engine.loader_statistics import Told
from chunkdl.errors import ChunkdlError, Closed
from chunkdl.system.awake_clock import deadline_of
from chunkdl.system.sections import Section
from chunkdl.system.wakeups import Wakeup, readable

T = TypeVar("T")

LOOK_FOR_ANSWER_S = 0.005
"""Somebody else may have taken in the answer that is waited for."""


class OwnEngine:
    """At most one engine at a time, of a loader that several threads may use.

    Nobody waits with the section held; who waits is woken when the engine is another one. The
    loader is held weakly: one that is dropped ends its processes at once.

    Args:
        section: of the loader. What belongs to an engine is changed in it only.
        check_open: raises `Closed` once the loader is.
        make: starts an engine that goes on where the loader stands; called in the section.
        forget: drops what the loader has of an engine that ends; called in the section.
    """

    def __init__(
        self,
        section: Section,
        check_open: Callable[[], object],
        make: Callable[[], EmbeddedEngine],
        forget: Callable[[], object],
    ) -> None:
        self._section = section
        self._check_open = _weak(check_open)
        self._make = _weak(make)
        self._forget = _weak(forget)
        self._wakeup = Wakeup()
        self.running: EmbeddedEngine | None = None
        """Of the section."""
        self._told = Told()
        self._question_s = 0.0
        """When it was last asked for its counters."""

    # ----------------------------------------------------------------------- use

    def use(self, act: Callable[[EmbeddedEngine], T], *, whole: bool = False) -> T | None:
        """Do something in the section with the engine, which is started if there is none.

        None: meanwhile another thread has ended it.

        Args:
            act: what is done.
            whole: no interrupt may break it off.

        Raises:
            Closed: the loader was closed.
        """
        self._check_open()
        engine = self.running
        if engine is None:
            engine = self._section.whole(self._started)

        def do() -> T | None:
            return act(engine) if self.running is engine else None

        try:
            if whole:
                return self._section.whole(do)
            with self._section.lock:
                return do()
        except ChunkdlError:
            if not engine.is_open:
                # It has never been there; so another attempt can be made.
                self._section.whole(lambda: self.end(engine))
            raise

    def _started(self) -> EmbeddedEngine:
        self._check_open()
        if self.running is None:
            self.running = self._make()
        return self.running

    def begin(self) -> bool:
        """Start it, and wait for nothing; whether it is up."""
        return bool(self.use(_is_up))

    def wait_until_up(self) -> None:
        """Start it, and wait until it is up."""
        forever = deadline_of(None)
        while True:
            calls = self.calls
            if self.begin():
                return
            self.wait(forever, calls)

    def end(self, only: EmbeddedEngine | None = None) -> None:
        """End it, or that one if it is still this; whoever calls has the section."""
        if only is not None and self.running is not only:
            return
        self._forget()
        if self.running is not None:
            self.running.close()
            self.running = None
        self._told = Told()

    # ---------------------------------------------------------------------- wait

    @property
    def calls(self) -> int:
        """Look at this before looking for something new, and then `wait` with it."""
        return self._wakeup.calls

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._wakeup.wake()

    def wait(self, left: Callable[[float], float], calls: int) -> None:
        """Wait until there may be something new.

        Args:
            left: of the time that may be waited; see `deadline_of`.
            calls: what `calls` was before it was seen that there is nothing.
        """
        watched = self.use(lambda it: (it, it.descriptors, left(it.look_s)))
        if watched is None:
            return
        engine, descriptors, wait_s = watched
        heard = self._wakeup.wait(descriptors, wait_s, calls)

        def tell(now: EmbeddedEngine) -> None:
            # Meanwhile another thread may have begun elsewhere.
            if now is engine:
                now.hear_channel()

        if descriptors[1] in heard:
            self.use(tell, whole=True)

    # ---------------------------------------------------------------- statistics

    def counters(self, timeout_s: float) -> Told:
        """What it has counted, as it was last told; it is asked, and waited for so long.

        An engine that is not up, or is just started or ended, is not asked.
        """
        left, asked = deadline_of(timeout_s), False
        while not self._section.is_mine and not self._section.is_long:
            with self._section.lock:
                engine = self.running
                if engine is None or not engine.is_open:
                    break
                engine.hear(past_batches=True)
                # Whoever waits for a batch is not told of what was taken in here.
                self.wake()
                if not self._is_waited_for(engine):
                    if asked:
                        break
                    self._ask(engine)
                    asked = True
                descriptors = engine.descriptors
            if not (piece_s := left(LOOK_FOR_ANSWER_S)):
                break
            readable(descriptors, piece_s)
        return self._told

    def ask_counters(self) -> None:
        """Ask it, and wait for nothing."""
        if self._section.is_long:
            return
        with self._section.lock:
            engine = self.running
            if engine is not None and engine.is_open and not self._is_waited_for(engine):
                self._ask(engine)

    def _ask(self, engine: EmbeddedEngine) -> None:
        self._question_s = time.monotonic()
        engine.ask_statistics()

    def _is_waited_for(self, engine: EmbeddedEngine) -> bool:
        """Whether it was asked and has not answered; what it has answered is noted."""
        if engine.answers < engine.questions:
            return True
        if engine.answer is not None:
            self._told = Told(engine.answer, self._question_s)
        return False


def _weak(method: Callable[[], T]) -> Callable[[], T]:
    """A method that does not hold its object."""
    reference = weakref.WeakMethod(method)

    def call() -> T:
        alive = reference()
        if alive is None:
            raise Closed("the loader is gone")
        found: T = alive()
        return found

    return call


def _is_up(engine: EmbeddedEngine) -> bool:
    engine.hear()
    if not engine.is_open:
        engine.nothing_came()
    return engine.is_open
