"""Keeps descriptors free: whoever opens tcp connections without end does not get the last ones.

Anybody who reaches a tcp address can open connections, and libzmq takes them all; where it then
cannot take one of this machine (`EMFILE`) it aborts the process. So before it comes to that the
kernel is told to drop what wants to connect by tcp. What is connected stays, and who is dropped
tries again; connections that never show a key end by themselves and make room.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import socket
import struct
import threading
from collections.abc import Iterable

from chunkdl.system.steady_log import steady_logger

FULL_RESERVE = 4096
"""Descriptors that are kept free, of many. What libzmq takes until the gate is closed is fewer."""
ENOUGH = 1024
"""With fewer in all a quarter is kept free, and not half: the service needs the others itself."""
LOOK_S = 0.25
"""How often a closed gate is looked at."""
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""Of the kernel; the socket module does not name them."""
END_S = 5.0
"""For its thread to end."""
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A filter of the kernel (BPF) that lets nothing through: return 0."""

log = steady_logger("chunkdl.service")


def reserve_of(limit: int) -> int:
    """How many of so many descriptors are kept free."""
    return min(limit // 2, FULL_RESERVE) if limit >= ENOUGH else limit // 4


class TcpGate:
    """Watches the listening tcp sockets of this process.

    After the start all fields belong to the thread that watches, until `close` has waited for its
    end; only `_end` is written to by the server's thread before.

    Args:
        ports: that it listens on.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self._listeners = _listeners(frozenset(ports))
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._poll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._end, select.EPOLLIN)
        for listener in self._listeners:
            # Once for each that comes, and not for as long as it waits.
            self._poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLET)
        self._closed, self._times = False, 0
        self._thread = threading.Thread(target=self._run, name="chunkdl-tcp-gate", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            happened = self._poll.poll(LOOK_S if self._closed else None)
            if any(descriptor == self._end for descriptor, _ in happened):
                return
            free = self._limit - _open_descriptors(self._limit)
            reserve = reserve_of(self._limit)
            if not self._closed and free <= reserve:
                try:
                    self._set(closed=True)
                except OSError as error:
                    self._open_all()
                    log.warning(
                        "the kernel cannot keep connections by tcp away (%s); whoever reaches the "
                        "port can take the last descriptors of the service",
                        error,
                    )
                    return
                self._tell(self._limit - free)
            elif self._closed and free > reserve:
                self._set(closed=False)

    def _tell(self, taken: int) -> None:
        """Again and again it is told less and less often."""
        self._times += 1
        if self._times & (self._times - 1) == 0:
            log.warning(
                "%d of %d descriptors are open: no more connections by tcp before some are closed "
                "(%dx so far). Does somebody open them without end? Let only your consumers reach "
                "the port (a firewall), or raise the limit (LimitNOFILE=, ulimit -n)",
                taken,
                self._limit,
                self._times,
            )

    def _set(self, *, closed: bool) -> None:
        for listener in self._listeners:
            if closed:
                filters = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
                program = struct.pack("HP", 1, ctypes.addressof(filters))
                listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
            else:
                listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self._closed = closed

    def _open_all(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Watch no more."""
        os.eventfd_write(self._end, 1)
        self._thread.join(END_S)
        self._poll.close()
        os.close(self._end)
        for listener in self._listeners:
            listener.close()


def _listeners(ports: frozenset[int]) -> list[socket.socket]:
    """Copies of the descriptors of listening sockets, which libzmq has made and does not show."""
    found: dict[int, socket.socket] = {}
    for name in os.listdir("/proc/self/fd"):
        # Others may be closed meanwhile, or be no sockets.
        with contextlib.suppress(OSError):
            descriptor = os.dup(int(name))
            try:
                one = socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                continue
            at = one.getsockname() if one.family in (socket.AF_INET, socket.AF_INET6) else ()
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            # By its number a copy of ours may come again.
            if at and listens and at[1] in ports and os.fstat(descriptor).st_ino not in found:
                found[os.fstat(descriptor).st_ino] = one
            else:
                one.close()
    return list(found.values())


def _open_descriptors(limit: int) -> int:
    """How many this process has, of so many."""
    try:
        # Older kernels give no number there, and to list them takes a descriptor.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return limit
