"""How far a survey is, in one line that is written again and again; in a file now and then."""

from __future__ import annotations

from typing import TextIO

from chunkdl.system.awake_clock import AwakeClock

AT_MOST_S = 3600.0
TERMINAL_S, FILE_S = 0.2, 60.0
"""Between two lines, in a terminal and in anything else."""
BAR = 24


class ProgressLine:
    """Says how far it is; used by one thread.

    Args:
        stream: where it is written, such as `sys.stderr`; None: nowhere.
        total: number of slides.
        known: of these, those that need no look.
    """

    def __init__(self, stream: TextIO | None, total: int, known: int) -> None:
        self._stream = stream
        self._total = total
        self._known = known
        self._clock = AwakeClock(AT_MOST_S)
        self._began_s = self._clock.now()
        self._told_s = self._began_s
        self._in_place = stream is not None and stream.isatty()
        self._written = 0

    def tell(self, done: int, problems: int) -> None:
        """Say so, if it is time.

        Args:
            done: slides that are known now.
            problems: of these, those with a problem.
        """
        now_s = self._clock.now()
        if self._stream is None or now_s - self._told_s < (
            TERMINAL_S if self._in_place else FILE_S
        ):
            return
        self._told_s = now_s
        looked = done - self._known
        left_s = (now_s - self._began_s) / looked * (self._total - done) if looked else None
        self._write(line(done, self._total, problems, left_s))

    def end(self) -> None:
        """The line goes away; what was found is said by others."""
        if self._in_place and self._written:
            self._write("")

    def _write(self, text: str) -> None:
        assert self._stream is not None
        if self._in_place:
            # What is longer than this line would stay behind it.
            self._stream.write(f"\r{text:<{self._written}}" + ("\r" if not text else ""))
            self._written = max(self._written, len(text))
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def line(done: int, total: int, problems: int, left_s: float | None) -> str:
    """How far a survey is, for people.

    Args:
        done: slides that are known.
        total: slides.
        problems: slides with a problem.
        left_s: estimated, seconds; None: nobody knows yet.
    """
    full = BAR * done // total if total else BAR
    left = "" if left_s is None else f", {duration(left_s)} left"
    bad = f", {problems:,} with problems" if problems else ""
    return f"survey [{'#' * full}{'.' * (BAR - full)}] {done:,} of {total:,} slides{bad}{left}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
