"""The stderr of a child: passed on as it comes, and the last of it kept for the error.

Why by a pipe and a thread: docs/decisions/0025-hear-the-stderr-of-children.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading

from chunkdl.system.printing import printable

PIPE_BYTES = 64 * 1024
"""What a pipe of Linux holds."""
KEPT_BYTES = 8 * 1024
"""Of what a child has written, at most."""
MOST_LINES, MOST_CHARACTERS = 20, 2_000
"""Of that in an error."""
LAST_S = 5.0
"""For the rest to be read of a child that has ended; a busy machine takes its time."""


class StderrTail:
    """Copies what a child writes to its stderr, until the child has ended.

    The descriptors belong to the thread that copies, which closes them. `_kept` is replaced by that
    thread as a whole, and read by others.

    Args:
        pipe: the end that is read, of the pipe that is the child's stderr.
        pid: of the child, which was not waited for yet.
        copy_to: where it goes. Both descriptors are closed at the end.
    """

    def __init__(self, pipe: int, pid: int, copy_to: int) -> None:
        self._pipe = pipe
        self._copy_to = copy_to
        self._kept = b""
        self._pidfd = os.pidfd_open(pid)
        self._thread = threading.Thread(target=self._run, name=f"chunkdl-stderr-{pid}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._pidfd)
            raise

    def _run(self) -> None:
        try:
            poll = select.poll()
            poll.register(self._pipe, select.POLLIN)
            poll.register(self._pidfd, select.POLLIN)
            while self._pipe in (ready := dict(poll.poll())) or self._pidfd not in ready:
                # What the child has started may keep the pipe; it is heard as long as the child.
                data = os.read(self._pipe, PIPE_BYTES)
                if not data:
                    return
                self._kept = (self._kept + data)[-KEPT_BYTES:]
                self._pass_on(data)
        finally:
            for descriptor in (self._pipe, self._pidfd, self._copy_to):
                os.close(descriptor)

    def _pass_on(self, data: bytes) -> None:
        # A log whose disk is full, or whose reader is gone, must not stop who writes to it.
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self._copy_to, data) :]
                except BlockingIOError:
                    select.select([], [self._copy_to], [])

    @property
    def is_over(self) -> bool:
        """Whether nothing more is passed on."""
        return not self._thread.is_alive()

    def last_lines(self) -> str:
        """The last lines of a child that has ended; empty for none."""
        self.finish()
        lines = self._kept.decode(errors="replace").strip().splitlines()[-MOST_LINES:]
        return printable("\n".join(lines)[-MOST_CHARACTERS:])

    def finish(self) -> None:
        """Wait until what a child wrote that has ended was passed on, if somebody takes it."""
        self._thread.join(LAST_S)
