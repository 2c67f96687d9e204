"""What a program of chunkdl is given by the one that starts it, and passes on to its own children.

Apart from what starts programs: most of them start none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from chunkdl.transport.child_imports import Imports

FOR_THE_TRAINING = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGXCPU,
        signal.SIGIO,
        signal.SIGPWR,
    ),
)
"""Signals that a batch system or a terminal sends to all processes of a job and that end a process
which does not know them. What they mean is for the training to decide."""

_given: Given | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What this process, being a child itself, was given at its start.

    Attributes:
        imports: of the training.
        stderr: descriptor of the training's stderr, where this process copies its children's.
    """

    imports: Imports
    stderr: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From the plain data of `told`."""
        return cls(Imports.of(told["imports"]), told["stderr"])

    def told(self) -> dict[str, Any]:
        """As plain data, that a program reads before it can import this."""
        return {"imports": self.imports.told(), "stderr": self.stderr}


def remember(given: Given) -> None:
    """What this process starts gets what it was given itself."""
    global _given
    _given = given
    if given.stderr != 2:
        os.set_inheritable(given.stderr, False)


def given_here() -> Given | None:
    """What this process was given; None: it is not one of the programs of chunkdl."""
    return _given


def is_child() -> bool:
    """Whether this process is one of these programs itself."""
    return _given is not None


def training_stderr() -> int:
    """A new descriptor of the training's stderr; of nothing where that is closed."""
    try:
        return fcntl.fcntl(2 if _given is None else _given.stderr, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        with contextlib.closing(os.fdopen(nothing, "wb", buffering=0)):
            return fcntl.fcntl(nothing, fcntl.F_DUPFD_CLOEXEC, 3)
