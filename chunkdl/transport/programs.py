"""The programs of chunkdl as children of this process: started, heard, ended.

A child is a Python of its own; this process is never forked. It imports where `child_imports` says,
begins with the signals of the training held back until it has made itself deaf to them, and its
stderr is passed on and remembered.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

from chunkdl.errors import ConfigError
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.channel import descriptor_of
from chunkdl.transport.child_imports import VARIABLE, Imports
from chunkdl.transport.given import FOR_THE_TRAINING, Given, given_here, is_child, training_stderr
from chunkdl.transport.stderr_tail import StderrTail

log = steady_logger("chunkdl")

START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import chunkdl_workers; del sys.path[0]; "
    "from chunkdl_workers.birth import run; run()"
)
"""What a child runs, with the folder, the module, a descriptor and the module's own arguments. The
package is named by its folder and has nothing in it, so nothing else is taken from there."""
KILLED_S = 5.0
"""For a process that was killed to be gone."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ChildProgram:
    """A running program.

    Args:
        module: that the child runs, "chunkdl_workers.…".
        arguments: of the module; the numbers of the descriptors follow behind them.
        descriptors: that the child inherits; they stay open here.
        leads: it outlives signals of the terminal and starts children of its own.

    Raises:
        ConfigError: there is no Python to start.
        OSError: the system does not start one more process.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[object],
        descriptors: Sequence[int],
        *,
        leads: bool = False,
    ) -> None:
        self._owner = os.getpid()
        with contextlib.ExitStack() as stack:
            heard, written = os.pipe()
            stack.callback(os.close, written)
            on_error = stack.enter_context(contextlib.ExitStack())
            on_error.callback(os.close, heard)
            copy_to = training_stderr()
            on_error.callback(os.close, copy_to)
            passed = [stack.enter_context(_high(number)) for number in descriptors]
            command, environment, told = command_of(module, copy_to if leads else 2)
            stack.callback(os.close, told)
            given = stack.enter_context(_high(told))
            with signals_held_back():
                self.process = subprocess.Popen(
                    [*command, str(given), *map(str, (*arguments, *passed))],
                    pass_fds=[*passed, given, *([copy_to] if leads else [])],
                    stdin=subprocess.DEVNULL,
                    stderr=written,
                    env=environment,
                    # Ctrl-C of the terminal is for the training process; the service follows it.
                    process_group=0 if leads else None,
                )
            on_error.callback(self._end)
            self._tail = StderrTail(heard, self.process.pid, copy_to)
            # From here on they belong to the thread that reads.
            on_error.pop_all()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def ended_how(self) -> str:
        """How it has ended, for people: by which signal, or with which status."""
        code = self.process.poll()
        if code is None:
            return "has not ended yet"
        return f"was ended by {signal_name(-code)}" if code < 0 else f"ended with {code}"

    def last_lines(self) -> str:
        """Of its stderr, once it has ended, to be put behind a sentence; empty for none."""
        lines = self._tail.last_lines()
        return f"; the last lines of its stderr:\n{lines}" if lines else ""

    def poll(self) -> int | None:
        """Its exit status; None: it runs."""
        return self.process.poll()

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once; what the kernel does for its children is theirs to say."""
        # Of a fork of this process it is not a child, and its number may be another's by then.
        if os.getpid() == self._owner:
            self.process.kill()

    def wait(self, timeout_s: float) -> int:
        """Its exit status, once it has ended and what it wrote was passed on.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        code = self._wait(timeout_s)
        self._tail.finish()
        return code

    def end(self) -> None:
        """Kill it, and wait until it is gone, as long as that can take.

        What the kernel holds, most often over a file whose storage is away, does nothing more when
        it is let go; nobody has to wait for that.
        """
        self.kill()
        try:
            self.wait(KILLED_S)
        except subprocess.TimeoutExpired:
            log.warning(
                "process %d was killed and is still held by the kernel after %g s; it is left to "
                "that (is a disk or a file server away?)",
                self.pid,
                KILLED_S,
            )
            self.leave()

    def leave(self) -> None:
        """Nobody waits for it any more; whenever it goes, it is collected."""
        reaper = threading.Thread(
            target=self.process.wait, name=f"chunkdl-reaper-{self.pid}", daemon=True
        )
        # Where no thread can be had, it is collected with this process.
        with contextlib.suppress(RuntimeError):
            reaper.start()

    def _wait(self, timeout_s: float) -> int:
        left = deadline_of(timeout_s)
        while True:
            piece_s = left(PIECE_S)
            try:
                return self.process.wait(piece_s)
            except subprocess.TimeoutExpired:
                if not piece_s:
                    raise

    def _end(self) -> None:
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(KILLED_S)


def command_of(module: str, stderr: int) -> tuple[list[str], dict[str, str], int]:
    """Command line, environment and a descriptor for a program; the descriptor's number is its next
    argument, and the caller closes it.

    Args:
        module: that it runs.
        stderr: where it has to copy the stderr of its children to, should it have any.

    Raises:
        ConfigError: there is no Python to start.
    """
    given = given_here()
    imports = Imports.of_this_process() if given is None else given.imports
    environment = dict(os.environ)
    # It would come before the standard library; the child is told where to import from.
    environment.pop(VARIABLE, None)
    for name in ONE_THREAD:
        environment.setdefault(name, "1")
    command = [_interpreter(), *_flags(), "-c", START, imports.workers, module]
    return command, environment, descriptor_of(json.dumps(Given(imports, stderr).told()).encode())


def _interpreter() -> str:
    """The Python that children run.

    Raises:
        ConfigError: this program is none.
    """
    if is_child():
        return sys.executable
    # A child starts others as it was started itself, and saves the import.
    import multiprocessing.spawn

    # What programs that have a Python built in set for multiprocessing counts here too.
    executable = os.fsdecode(multiprocessing.spawn.get_executable() or "")
    if not executable or (getattr(sys, "frozen", False) and executable == sys.executable):
        raise ConfigError(
            f"the processes of chunkdl need a Python interpreter, and {executable!r} (of this "
            "program) is not one; name one with multiprocessing.set_executable(path)"
        )
    return executable


def _flags() -> list[str]:
    """Options under which a child reads files and names as this process does."""
    here = sys.flags
    flags = [
        (here.isolated, "-I"),
        (here.ignore_environment, "-E"),
        (here.no_user_site, "-s"),
        (here.no_site, "-S"),
        (here.dont_write_bytecode, "-B"),
        (True, "-P"),
    ]
    return [
        *(flag for wanted, flag in flags if wanted),
        *["-O"] * here.optimize,
        *("-X", f"utf8={here.utf8_mode}"),
    ]


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Have signals of the training wait, here and in what is started meanwhile.

    A child inherits this and lets them come when it knows what to do with them; until then one
    would end it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_TRAINING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signal_name(number: int) -> str:
    """Its name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def _high(descriptor: int) -> Iterator[int]:
    """The descriptor, or one for the same that is none of the standard ones.

    A training whose stdin or stderr is closed gets their numbers for what it opens, and a child has
    something else there.
    """
    if descriptor > 2:
        yield descriptor
        return
    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        yield copy
    finally:
        os.close(copy)
