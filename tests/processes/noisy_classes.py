"""Transforms of a user that write to stderr, start programs, or want signals for themselves.

Imports no torch and no pytest, so that the workers need neither.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WORDS = "the decoder says: page 7 is odd\n"


def say_and_crash(pixels: Any) -> Any:
    """Writes as a C library does, and dies of something that nobody catches."""
    os.write(2, WORDS.encode())
    os._exit(7)


class Flood:
    """Writes much more to stderr than anybody keeps, once.

    Args:
        size: bytes.
        when: a file that is waited for.
    """

    def __init__(self, size: int, when: Path | None = None) -> None:
        self._left = size
        self._when = when

    def __call__(self, pixels: Any) -> Any:
        """The same pixels."""
        while self._when is not None and not self._when.exists():
            time.sleep(0.01)
        while self._left > 0:
            self._left -= os.write(2, b"x" * 1023 + b"\n")
        return pixels


class Slowly:
    """Takes a while over each SmallChunk, of time in which it is not stopped.

    Args:
        seconds: that it takes.
        file: that it writes to when it begins.
    """

    def __init__(self, seconds: float, file: str = os.devnull) -> None:
        self._seconds = seconds
        self._file = file

    def __call__(self, pixels: Any) -> Any:
        """The same pixels."""
        Path(self._file).write_text(f"{time.monotonic()}")
        # A sleep ends in a stop that is longer than it; on a busy machine each has its delay.
        for _ in range(10):
            time.sleep(self._seconds / 10)
        return pixels


class Starts:
    """Starts a program, as hooks do that call a tool, and a process by fork; notes what they have.

    Args:
        file: for what it finds.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, pixels: Any) -> Any:
        """The same pixels."""
        if not self._file.exists():
            program = (
                "import os; print(open('/proc/self/status').read(), os.environ.get('PYTHONPATH'))"
            )
            told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
            sleeper = subprocess.Popen(["sleep", "600"])
            sleeper.terminate()
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            child.start()
            child.terminate()
            child.join(100)
            ends = f"ends {sleeper.wait(100)} {child.exitcode}"
            self._file.write_text(f"{told.stdout}\n{ends}\n")
        return pixels


class Installs:
    """Is unpickled with a handler for SIGTERM that ends the process, as some libraries have it."""

    def __setstate__(self, state: Any) -> None:
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGALRM, _ring)

    def __getstate__(self) -> dict[str, Any]:
        return {"something": 1}

    def __call__(self, pixels: Any) -> Any:
        """The same pixels; the alarm of the user's own is left alone."""
        if signal.getsignal(signal.SIGALRM) is not _ring:
            raise RuntimeError("the handler of the alarm was taken away")
        return pixels


def _leave(number: int, frame: object) -> None:
    sys.exit(1)


def _ring(number: int, frame: object) -> None:
    """An alarm that the user's code has set."""
