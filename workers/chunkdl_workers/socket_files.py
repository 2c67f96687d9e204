"""The files of listening sockets: who may make and remove them, and when.

A folder is locked while a service makes or removes sockets in it, so of two that begin at a time
over what a dead one has left one finds the other there, and nobody removes the socket of a living
one. The lock is the kernel's, on the folder itself: it leaves no file, and ends with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator

from chunkdl.errors import AddressInUse, ConfigError
from chunkdl.system.awake_clock import deadline_of
from chunkdl_workers.listening import peer_of

LOCK_S, PIECE_S = 10.0, 0.05
"""For another service to be done in the folder, and how often that is looked at."""
PROBE_S = 5.0
"""For a socket to say whether anybody listens there; one with a full queue says so at once."""


class SocketFiles:
    """The sockets that one service has in the file system."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[int, int]] = {}

    def note(self, path: str) -> None:
        """A socket of ours was made there, unless the name is one without a file."""
        if not is_abstract(path):
            self._made[path] = _file_at(path)

    def remove(self) -> None:
        """Remove what was made; what lies there meanwhile of somebody else stays."""
        made, self._made = self._made, {}
        for folder in {os.path.dirname(path) for path in made}:
            # Where nobody lets us the next service at the address removes it.
            with contextlib.suppress(ConfigError), locked(folder):
                for path, file in made.items():
                    with contextlib.suppress(OSError):
                        if os.path.dirname(path) == folder and _file_at(path) == file:
                            os.unlink(path)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Be the only one who makes or removes sockets in a folder.

    Raises:
        ConfigError: another one is busy there for too long, or the folder cannot be locked.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"the folder {folder} cannot be read: {error.strerror}") from error
    left = deadline_of(LOCK_S)
    try:
        while not _is_locked(descriptor, folder):
            if not (piece_s := left(PIECE_S)):
                raise ConfigError(
                    f"another program has locked the folder {folder} for {LOCK_S:.0f} s; give "
                    "the service a folder of its own"
                )
            time.sleep(piece_s)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, folder: str) -> bool:
    """Lock it if nobody has."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be locked: {error.strerror}; choose one on a disk of "
            "this machine"
        ) from error
    return True


def is_abstract(path: str) -> bool:
    """Whether a socket of that name has no file."""
    return path.startswith(("@", "\0"))


def check_file(path: str) -> None:
    """See that nothing is lost where a socket is made; ZeroMQ would remove any file there.

    Raises:
        ConfigError: there is something that is not a socket.
    """
    if is_abstract(path) or not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise ConfigError(f"{path} is there and is not a socket; choose another address")


def remove_dead(path: str) -> None:
    """Remove the socket (SOCK_SEQPACKET) of a service that was killed, in a locked folder.

    Raises:
        AddressInUse: it lives.
        ConfigError: it is not a socket, or not ours to look at.
    """
    check_file(path)
    name = path.replace("\0", "@")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            if is_abstract(path):
                raise AddressInUse(f"another service is just beginning at {name}") from None
            os.unlink(path)
        except (BlockingIOError, TimeoutError):
            raise AddressInUse(f"another service is at {name}, and is busy or frozen") from None
        except FileNotFoundError:
            return  # its service has ended meanwhile
        except OSError as error:
            raise ConfigError(f"cannot bind {name}: {error.strerror}") from error
        else:
            pid, _ = peer_of(probe)
            raise AddressInUse(f"another service is at {name} (pid {pid})")


def _file_at(path: str) -> tuple[int, int]:
    """Which file is there."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino
