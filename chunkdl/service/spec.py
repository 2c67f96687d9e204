"""What a service of many consumers is started with: frozen values, checked before.

`EngineConfig` says what one stream is; a service plays it for one or more groups of consumers,
each from a position of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chunkdl.dataset.labels import Label
from chunkdl.engine.config import EngineConfig
from chunkdl.service.keys import Keys

Mode = Literal["shard", "broadcast"]
Laggard = Literal["block", "detach"]
LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """A group of consumers.

    Attributes:
        name: that consumers join it by.
        mode: "shard": the members share the rows, each gets its part; "broadcast": each member gets
            all of them.
        max_lag_batches: broadcast: batches that the fastest member may be ahead of the slowest.
        laggard: broadcast, what happens to a member that lags more: "block": the others wait for
            it; "detach": it is told so and gets no more.
    """

    name: str
    mode: Mode = "shard"
    max_lag_batches: int = 4
    laggard: Laggard = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFacts:
    """What a consumer on another machine has to know of a patient."""

    id: int
    name: str
    labels: dict[str, Label]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """What the server process is given.

    Attributes:
        config: of the stream; its cursor is where groups begin that were never served.
        groups: that consumers may join.
        patients: of the dataset, in its order.
        slide_labels: of each slide of `config`, in their order.
        binds: addresses, "ipc:///path" or "tcp://host:port".
        keys: for the tcp addresses; None: they are not protected.
        max_consumers: sessions at a time, over all groups.
        credit_batches: batches that a consumer may hold at a time, at most.
        credit_bytes: the same in bytes.
        silent_s: a consumer that says nothing for so long is sent nothing more, seconds.
        grace_s: after so much more its session ends, seconds.
        drain_s: a drain waits so long for what is leased, seconds.
        exit_when_idle: end when the last consumer has left.
        journal: file for the positions of the groups; None: they are forgotten at the end.
        log_format: of what goes to stderr.
    """

    config: EngineConfig
    groups: tuple[GroupSpec, ...]
    patients: tuple[PatientFacts, ...]
    slide_labels: tuple[dict[str, Label], ...]
    binds: tuple[str, ...]
    keys: Keys | None = None
    max_consumers: int = 8
    credit_batches: int = 4
    credit_bytes: int = 2**31
    silent_s: float = 5.0
    grace_s: float = 30.0
    drain_s: float = 20.0
    exit_when_idle: bool = False
    journal: Path | None = None
    log_format: LogFormat = "text"
