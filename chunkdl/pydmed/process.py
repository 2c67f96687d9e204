"""What PyDmed's `LightDL` has because it is a process, for programs that treat it as one."""

from __future__ import annotations

import itertools

from chunkdl.errors import ConfigError

_numbers = itertools.count(1)


class AsProcess:
    """The names of `multiprocessing.Process`, told of a loader whose processes are its own.

    Attributes:
        name: a name that no other loader of this program has.
        daemon: as it was set; nothing of a loader outlives its program in either case.
        pid, ident: None, as there is no process to signal: `pause_loading()` ends all of them.
    """

    pid: int | None = None
    ident: int | None = None

    def __init__(self) -> None:
        self.name = f"{type(self).__name__}-{next(_numbers)}"
        self.daemon = False
        self._started = False
        self._paused = False

    def pause_loading(self) -> None:
        """End the loading for good."""
        self._paused = True

    def is_alive(self) -> bool:
        """Whether it was started and not paused; also behind the last batch, as in PyDmed."""
        return self._started and not self._paused

    @property
    def exitcode(self) -> int | None:
        """0 when it was paused, None before that."""
        return 0 if self._started and self._paused else None

    def terminate(self) -> None:
        """`pause_loading`."""
        self.pause_loading()

    def kill(self) -> None:
        """`pause_loading`."""
        self.pause_loading()

    def join(self, timeout: float | None = None) -> None:
        """Returns at once: nothing is left to wait for behind `pause_loading`, and with a timeout
        nothing would change while it waits.

        Raises:
            ConfigError: without a timeout it would wait forever.
        """
        if timeout is None and not self._paused:
            raise ConfigError(
                "join() would wait forever, because a loader ends with pause_loading(); call "
                "that first"
            )
