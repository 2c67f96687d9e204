"""The settings of a service, each declared once; `chunkdl.engine.settings.arguments` has those of
the stream that it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from chunkdl.engine.settings.checks import checked_path, checked_size
from chunkdl.engine.settings.setting import Setting
from chunkdl.errors import ConfigError
from chunkdl.service.addresses import check_addresses
from chunkdl.service.keys import Keys

Mode = Literal["shard", "broadcast"]
Laggard = Literal["block", "detach"]
LogFormat = Literal["text", "json"]

SPARE_SLOTS = 4
"""Batch slots besides those that consumers hold: two being filled, two waiting."""


def _addresses(name: str, binds: Any) -> tuple[str, ...]:
    if not isinstance(binds, Sequence) or isinstance(binds, str):
        raise ConfigError(
            f'{name}={binds!r} must be several addresses, such as ("ipc:///run/chunkdl/service",)'
        )
    check_addresses(tuple(binds))
    return tuple(binds)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """A group of consumers; `name` is what they join it by."""

    name: str
    mode: Annotated[
        Mode,
        Setting(
            meaning="shard: the members share the rows; broadcast: each gets all", table="group"
        ),
    ] = "shard"
    max_lag_batches: Annotated[
        int,
        Setting(
            meaning="broadcast: how far the fastest may be ahead of the slowest",
            table="group",
            unit="batches",
            least=1,
        ),
    ] = 4
    laggard: Annotated[
        Laggard,
        Setting(
            meaning="broadcast, beyond that: block: all wait; detach: it gets no more",
            table="group",
        ),
    ] = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What a daemon's file, or a program, says of a service.

    A field with a `Setting` is a setting of the table [service]. The groups have tables of their
    own, and the keys lie in files.

    Attributes:
        groups: that consumers may join.
        keys: for the tcp addresses; None: they are not protected.
    """

    binds: Annotated[
        tuple[str, ...],
        Setting(
            meaning="where to listen; empty: a socket in your runtime folder; only where nobody "
            "else may write",
            table="service",
            unit="ipc:///path or tcp://host:port",
            check=_addresses,
            key="bind",
            file_default=(),
        ),
    ]
    max_consumers: Annotated[
        int,
        Setting(meaning="at a time, over all groups", table="service", unit="consumers", least=1),
    ] = 8
    credit_batches: Annotated[
        int,
        Setting(
            meaning="that one consumer holds, at most", table="service", unit="batches", least=1
        ),
    ] = 4
    credit_bytes: Annotated[
        int,
        Setting(
            meaning="the same in memory",
            table="service",
            unit='bytes, or a text like "2GiB"',
            check=checked_size,
            file_type=int | str,
            file_default="2GiB",
        ),
    ] = 2**31
    silent_s: Annotated[
        float,
        Setting(
            meaning="a consumer that says nothing for so long gets nothing more",
            table="service",
            unit="seconds",
            above=0,
        ),
    ] = 5.0
    grace_s: Annotated[
        float,
        Setting(
            meaning="after so much more its session ends",
            table="service",
            unit="seconds",
            above=0,
        ),
    ] = 30.0
    drain_s: Annotated[
        float,
        Setting(
            meaning="a drain waits so long for what is held",
            table="service",
            unit="seconds",
            above=0,
        ),
    ] = 20.0
    exit_when_idle: Annotated[
        bool, Setting(meaning="end when the last consumer has left", table="service")
    ] = False
    journal: Annotated[
        Path | None,
        Setting(
            meaning="positions of the groups; by default they are forgotten",
            table="service",
            unit="file",
            check=checked_path,
            example="positions",
            file_type=str,
        ),
    ] = None
    log_format: Annotated[
        LogFormat, Setting(meaning="of what goes to stderr: text or json", table="service")
    ] = "text"
    insecure: Annotated[
        bool,
        Setting(meaning="let whoever reaches a tcp address connect without keys", table="service"),
    ] = False
    groups: tuple[GroupSpec, ...] = (GroupSpec(name="train"),)
    keys: Keys | None = None

    @property
    def held_slots(self) -> int:
        """Batch slots that the consumers of one group may hold at a time."""
        return self.max_consumers * self.credit_batches

    @property
    def needed_slots(self) -> int:
        """Batch slots with which no consumer ever waits for another's."""
        lags = [group.max_lag_batches for group in self.groups if group.mode == "broadcast"]
        return max(self.held_slots, *lags, 0) + SPARE_SLOTS
