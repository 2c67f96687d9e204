"""`chunkdl.connect`: from an address to a loader."""

from __future__ import annotations

import os
from collections.abc import Callable

from chunkdl.arguments import number, whole
from chunkdl.errors import ConfigError
from chunkdl.machine import parse_bytes
from chunkdl.session_thread import Wish
from chunkdl.shared import SharedDL, rank_of
from chunkdl.wire import ClientKeys


def connect(
    address: str,
    group: str = "train",
    rank: int | None = None,
    world_size: int | None = None,
    batch_size: int | None = None,
    *,
    credit_batches: int = 4,
    credit_bytes: int | str = "1GiB",
    keys: ClientKeys | None = None,
    connect_timeout: float = 30.0,
    reconnect_timeout: float = 60.0,
    pin_memory: bool | None = None,
    batches: int | None = None,
    when_closed: Callable[[], None] = lambda: None,
) -> SharedDL:
    """Join a group of a service.

    Args:
        address: "ipc:///path" of a service on this machine, or "tcp://host:port".
        group: that is joined.
        rank, world_size: which of how many ranks share the rows; torchrun's without.
        batch_size: rows of a batch of this consumer; the stream's own without.
        credit_batches, credit_bytes: that may be under way or in use at a time.
        keys: CURVE keys, for a service that wants them; see `chunkdl.curve_keys`.
        connect_timeout: how long the service may take to be there, seconds.
        reconnect_timeout: how long it may be away later, seconds.
        pin_memory: copy batches into page-locked memory; by default where CUDA is there.
        batches: end the iteration after so many batches; the next iteration goes on behind them.
        when_closed: called once the loader is closed.

    Raises:
        ConfigError: an argument is wrong.
        ServiceRefused: the service does not take this consumer; the message says why.
        ServiceDied: nobody answers at the address.
    """
    of, size = rank_of(rank, world_size)
    for name, value in (
        ("connect_timeout", connect_timeout),
        ("reconnect_timeout", reconnect_timeout),
    ):
        if not number(name, value) > 0:
            raise ConfigError(f"{name}={value!r} must be above 0 (seconds)")
    wish = Wish(
        address=os.fspath(address),
        group=group,
        rank=of,
        world_size=size,
        batch_rows=0 if batch_size is None else whole("batch_size", batch_size, 1, 2**20),
        credit_batches=whole("credit_batches", credit_batches, 1, 4096),
        credit_bytes=parse_bytes(credit_bytes, "credit_bytes"),
        keys=keys,
        reconnect_s=reconnect_timeout,
        connect_s=connect_timeout,
    )
    return SharedDL(wish, pin_memory=pin_memory, batches=batches, when_closed=when_closed)
