"""A stretch of network between a consumer and a service, which can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PART_BYTES = 4096
"""Of what is passed on at a time; less than a batch, so that a cut may fall into one."""


class TcpProxy:
    """Passes on what comes to its address, until it is cut.

    Args:
        behind: tcp address of the service.
    """

    def __init__(self, behind: str) -> None:
        parts = urlsplit(behind)
        self._behind = parts.hostname, parts.port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._door.getsockname()[1]}"
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._cut_after: int | None = None
        self.passed_bytes = 0
        self.cuts = 0
        """Connections that were cut."""
        self._begin(self._accept)

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                self._ends.append(near)
                far = socket.create_connection(self._behind)
                self._ends.append(far)
                with self._lock:
                    self._pairs.append((near, far))
                self._begin(self._pass_on, near, far, False)
                self._begin(self._pass_on, far, near, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PART_BYTES):
                passes = self._passes(len(data)) if counted else len(data)
                target.sendall(data[:passes])
                if passes < len(data):
                    self.cut()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _passes(self, size: int) -> int:
        """How many of so many bytes come through before the cut."""
        with self._lock:
            if self._cut_after is not None and self.passed_bytes + size > self._cut_after:
                size, self._cut_after = self._cut_after - self.passed_bytes, None
            self.passed_bytes += size
            return size

    def cut_after(self, more_bytes: int) -> None:
        """Cut all connections behind exactly so many bytes more of the service."""
        with self._lock:
            self._cut_after = self.passed_bytes + more_bytes

    def cut(self, number: int | None = None) -> None:
        """Cut all connections there are, or only the one that came as that one of them."""
        with self._lock:
            pairs = self._pairs if number is None else [self._pairs[number]]
            self._pairs = [pair for pair in self._pairs if pair not in pairs]
            self.cuts += len(pairs)
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.cut()
        for thread in self._threads:
            thread.join(100)
        for end in self._ends:
            end.close()
