"""The only thing that a service keeps on disk: where its groups stand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from chunkdl.coordination.group import Group
from chunkdl.errors import StateError
from chunkdl.plan.rules import Rules
from chunkdl.protocol.service_messages import Position
from chunkdl.steady_log import steady_logger

EVERY_S = 1.0
"""Written at most so often, and at the end."""

log = steady_logger("chunkdl.service")


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan_hash: str
    groups: dict[str, Position]
    rules: Rules = Rules()


class PositionFile:
    """Positions of groups in a file that is replaced as a whole.

    Args:
        path: of the file; None: nothing is kept.
        plan_hash: of the stream; positions of another one are not used.
    """

    def __init__(self, path: Path | None, plan_hash: str) -> None:
        self._path = path
        self._plan_hash = plan_hash
        self._next_s = 0.0
        self._written = b""
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
        if kept.plan_hash != self._plan_hash:
            log.warning("%s is of another stream, the groups begin anew", self._path)
            return {}
        return {name: at for name, at in kept.groups.items() if at.left.is_sound()}

    def of(self, group: str, mode: str) -> Position | None:
        """Where a group stood, if that is known; a broadcast begins anew."""
        return self._before.get(group) if mode == "shard" else None

    def keep(self, groups: Mapping[str, Group], now_s: float) -> None:
        """Write where the groups stand, if it is time to and they have moved."""
        if self._path is None or now_s < self._next_s:
            return
        self._next_s = now_s + EVERY_S
        kept = _Kept(self._plan_hash, {name: group.position() for name, group in groups.items()})
        data = msgspec.json.encode(kept)
        if data == self._written:
            return
        beside = self._path.with_name(self._path.name + ".new")
        try:
            beside.write_bytes(data)
            os.replace(beside, self._path)
        except OSError as error:
            # A full disk must not end a training; consumers have their own states.
            log.warning("the positions cannot be written to %s: %s", self._path, error)
        self._written = data
