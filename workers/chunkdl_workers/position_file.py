"""The only thing that a service keeps on disk: where its groups stand.

It is written by a thread of its own: a disk that does not answer holds nobody up.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chunkdl.errors import StateError
from chunkdl.sampling.rules import Rules
from chunkdl.service.decisions.group import Group
from chunkdl.system.kept_files import write_whole
from chunkdl.system.steady_log import steady_logger
from chunkdl.transport.protocol.service_messages import Position

EVERY_S = 1.0
"""Written at most so often, and at the end."""
SLOW_S = 10.0
"""After so long a disk that does not answer is told."""
END_S = 5.0
"""For the last positions to be written, before the service ends without them."""

log = steady_logger("chunkdl.service")


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows_hash: str
    groups: dict[str, Position]
    rules: Rules = Rules()


class PositionFile:
    """Positions of groups in a file that is replaced as a whole; used by the server's thread.

    Args:
        path: of the file; None: nothing is kept.
        rows_hash: identity of the rows; positions of others are not used.
    """

    def __init__(self, path: Path | None, rows_hash: str) -> None:
        self._path = path
        self._rows_hash = rows_hash
        self._next_s = 0.0
        self._last = b""
        self._writer = None if path is None else _Writer(path)
        self._before = self._read()

    def _read(self) -> dict[str, Position]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be used, the groups begin anew: %s", self._path, error)
            return {}
        try:
            Rules().check(kept.rules)
        except StateError as error:
            log.warning("%s is not used, the groups begin anew: %s", self._path, error)
            return {}
        if kept.rows_hash != self._rows_hash:
            log.warning("%s is of another stream, the groups begin anew", self._path)
            return {}
        return {name: at for name, at in kept.groups.items() if at.left.is_sound()}

    def of(self, group: str, mode: str) -> Position | None:
        """Where a group stood, if that is known; a broadcast begins anew."""
        return self._before.get(group) if mode == "shard" else None

    def keep(self, groups: Mapping[str, Group], now_s: float) -> None:
        """Have it written where the groups stand, if it is time to and they have moved."""
        if self._writer is None or now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        if now_s != math.inf:
            # Not at the end, which has a limit of its own.
            self._writer.watch(now_s)
        kept = _Kept(self._rows_hash, {name: group.position() for name, group in groups.items()})
        data = msgspec.json.encode(kept)
        if data != self._last:
            self._last = data
            self._writer.write(data)

    def close(self) -> None:
        """Wait until what was kept last is on the disk, if that answers in time."""
        if self._writer is not None and not self._writer.end():
            log.warning(
                "the last positions were not written to %s within %g s: its disk does not answer",
                self._path,
                END_S,
            )


class _Writer:
    """Writes a file again and again in a thread; what comes while it writes replaces what waits.

    Args:
        path: of the file, which is replaced as a whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Of both threads, changed under the lock of `_changed`; `watch` reads a number without it.
        self._changed = threading.Condition()
        self._wanted: bytes | None = None
        """What is to be written next; taken out by the writing thread."""
        self._ends = False
        self._under_way = self._writes = 0
        """Number of the write that is under way, 0 for none; and how many there were. Changed by
        the writing thread."""
        # Of the thread of the server, which watches.
        self._seen = self._told = 0
        self._since_s = 0.0
        # Always the same: whoever is killed while it writes, every second perhaps, leaves one file.
        self._beside = path.with_name(path.name + ".new")
        # Where a disk holds it for ever the process ends without it.
        self._thread = threading.Thread(target=self._run, name="chunkdl-positions", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Have that written next."""
        with self._changed:
            self._wanted = data
            self._changed.notify_all()

    def watch(self, now_s: float) -> None:
        """Tell once of a disk that takes too long."""
        number = self._under_way
        if number != self._seen:
            self._seen, self._since_s = number, now_s
        elif number not in (0, self._told) and now_s - self._since_s >= SLOW_S:
            self._told = number
            log.warning(
                "the positions have not been written to %s for %g s: does its disk answer? The "
                "service goes on; one that is started again would not know where it stood",
                self._path,
                SLOW_S,
            )

    def end(self) -> bool:
        """Whether everything was written in time; nothing is written any more."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join(END_S)
        return not self._thread.is_alive() and self._wanted is None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._under_way = 0
                self._changed.wait_for(lambda: self._ends or self._wanted is not None)
                data, self._wanted = self._wanted, None
                if data is None:
                    return
                self._writes += 1
                self._under_way = self._writes
            try:
                # Whatever the umask: a file that others may write to is refused at the next start.
                write_whole(self._path, data, beside=self._beside, mode=0o600, to_disk=True)
            except OSError as error:
                # A full disk must not end a training; consumers have their own states.
                log.warning("the positions cannot be written to %s: %s", self._path, error)
