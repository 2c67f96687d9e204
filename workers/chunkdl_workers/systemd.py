"""What systemd wants to hear (sd_notify); nothing where nobody listens."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Tells the service manager how the daemon is."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval = os.environ.get("WATCHDOG_USEC", "")
        watched = for_us and interval.isdecimal() and bool(self._address)
        self.watchdog_s = int(interval) / 2e6 if watched else None
        """How often it wants a sign of life, seconds; None: it does not."""

    def alive(self) -> None:
        """Give the sign of life, where one is wanted."""
        if self.watchdog_s is not None:
            self.tell("WATCHDOG=1")

    def tell(self, state: str, patience_s: float = 1.0) -> None:
        """Send a line such as READY=1, unless a manager that stands still takes none that long."""
        if not self._address:
            return
        # A leading @ is the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as end:
            end.settimeout(patience_s)
            try:
                end.connect(address)
                end.send(state.encode())
            except TimeoutError:
                return
            except OSError:
                # Whoever listened is gone; the service goes on.
                self._address = ""
