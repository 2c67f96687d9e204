"""`chunkdl.connect`: from an address to a loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import overload

from chunkdl.consumers.batches.array_kinds import array_kind
from chunkdl.consumers.batches.arrays import ArrayKind, ArraysName
from chunkdl.consumers.loader import check_batches
from chunkdl.consumers.merged import MergedDL, OnNodeLost
from chunkdl.consumers.ranks import find
from chunkdl.consumers.several_services import portions
from chunkdl.consumers.shared import SharedDL
from chunkdl.engine.settings.checks import checked_float, checked_int, choice, flag, parse_bytes
from chunkdl.errors import ConfigError
from chunkdl.service.client.control import operate
from chunkdl.service.client.session_thread import JoinRequest
from chunkdl.service.keys import ClientKeys


@overload
def connect(
    address: str,
    group: str = ...,
    rank: int | None = ...,
    world_size: int | None = ...,
    batch_size: int | None = ...,
    *,
    credit_batches: int = ...,
    credit_bytes: int | str = ...,
    keys: ClientKeys | None = ...,
    connect_timeout: float = ...,
    reconnect_timeout: float = ...,
    pin_memory: bool | None = ...,
    arrays: ArraysName = ...,
    tensors_only: bool = ...,
    batches: int | None = ...,
    when_closed: Callable[[], None] = ...,
    on_node_lost: OnNodeLost = ...,
    take_over: bool = ...,
) -> SharedDL: ...
@overload
def connect(
    address: list[str] | tuple[str, ...],
    group: str = ...,
    rank: int | None = ...,
    world_size: int | None = ...,
    batch_size: int | None = ...,
    *,
    credit_batches: int = ...,
    credit_bytes: int | str = ...,
    keys: ClientKeys | None = ...,
    connect_timeout: float = ...,
    reconnect_timeout: float = ...,
    pin_memory: bool | None = ...,
    arrays: ArraysName = ...,
    tensors_only: bool = ...,
    batches: int | None = ...,
    when_closed: Callable[[], None] = ...,
    on_node_lost: OnNodeLost = ...,
    take_over: bool = ...,
) -> MergedDL: ...
def connect(
    address: str | list[str] | tuple[str, ...],
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
    arrays: ArraysName = "torch",
    tensors_only: bool = False,
    batches: int | None = None,
    when_closed: Callable[[], None] = lambda: None,
    on_node_lost: OnNodeLost = "raise",
    take_over: bool = False,
) -> SharedDL | MergedDL:
    """Join a group of a service.

    Args:
        address: "ipc:///path" of a service on this machine, or "tcp://host:port". A list of several
            services, each with its own slides, gives one loader whose batches have rows of all.
        group: name of the group to join.
        rank, world_size: which of how many ranks share the rows; by default those of
            torch.distributed, torchrun, MPI or Slurm, see `chunkdl.consumers.ranks`.
        batch_size: rows of a batch of this consumer; by default that of the stream.
        credit_batches, credit_bytes: maximum that may be on the way or in use at a time.
        keys: CURVE keys, for a service that needs them; see `chunkdl.service.keys`.
        connect_timeout: seconds to wait for the service at the start.
        reconnect_timeout: seconds to wait for the service if it is lost later.
        pin_memory: copy batches into page-locked memory; by default if CUDA is available.
        arrays: "torch" or "numpy".
        tensors_only: batches have only columns that are arrays; see `LightDL`.
        batches: number of batches of an epoch of an endless stream; each iteration gives as many.
        when_closed: called when the loader has been closed.
        on_node_lost: for several services: "raise", or "continue" without a lost service.
        take_over: take the rank from a healthy consumer that has it; that consumer is told. Only
            operators may do this: processes on the machine of the service, or with such a key.

    Raises:
        ConfigError: an argument is wrong.
        ServiceRefused: the service does not accept this consumer; the message says why.
        ServiceDied: there is no answer at the address.
    """
    several = isinstance(address, list | tuple) and all(isinstance(one, str) for one in address)
    if not isinstance(address, str) and not several:
        raise ConfigError(
            f"address={address!r} is not an address, such as ipc:///run/chunkdl/service, and not a "
            "list of several"
        )
    choice("on_node_lost", on_node_lost, ("raise", "continue"))
    ranks = find(rank, world_size)
    for name, value in (
        ("connect_timeout", connect_timeout),
        ("reconnect_timeout", reconnect_timeout),
    ):
        if not checked_float(name, value) > 0:
            raise ConfigError(f"{name}={value!r} must be above 0 (seconds)")
    kind = array_kind(arrays, pin=pin_memory)
    check_batches(batches)
    rows = 0 if batch_size is None else checked_int("batch_size", batch_size, 1, 2**20)
    wish = JoinRequest(
        address="" if not isinstance(address, str) else address,
        group=group,
        rank=ranks.rank,
        world_size=ranks.world_size,
        batch_rows=rows,
        credit_batches=checked_int("credit_batches", credit_batches, 1, 4096),
        credit_bytes=parse_bytes(credit_bytes, "credit_bytes"),
        keys=keys,
        reconnect_s=reconnect_timeout,
        connect_s=connect_timeout,
        take_over=flag("take_over", take_over),
    )
    if isinstance(address, str):
        if on_node_lost != "raise":
            raise ConfigError(
                f"on_node_lost={on_node_lost!r} is for several services; give their addresses in a "
                "list, or leave it out"
            )
        return SharedDL(
            wish, kind, batches=batches, tensors_only=tensors_only, when_closed=when_closed
        )
    return _merged(
        tuple(address),
        wish,
        kind,
        on_node_lost,
        tensors_only=tensors_only,
        batches=batches,
        when_closed=when_closed,
    )


def _merged(
    addresses: tuple[str, ...],
    wish: JoinRequest,
    kind: ArrayKind,
    on_node_lost: OnNodeLost,
    *,
    tensors_only: bool,
    batches: int | None,
    when_closed: Callable[[], None],
) -> MergedDL:
    if len(set(addresses)) != len(addresses) or not addresses:
        raise ConfigError(f"address={list(addresses)!r} must name services, each once")
    found = [
        operate(address, "status", timeout_s=wish.connect_s, keys=wish.keys)
        for address in addresses
    ]
    rows = wish.batch_rows or int(found[0]["batch_size"])
    shares = portions([int(status["patients"]) for status in found], rows)
    loaders: dict[str, SharedDL] = {}
    try:
        for address, share in zip(addresses, shares, strict=True):
            one = dataclasses.replace(wish, address=address, batch_rows=share)
            loaders[address] = SharedDL(one, kind, tensors_only=tensors_only)
        return MergedDL(loaders, kind, on_node_lost, batches=batches, when_closed=when_closed)
    except BaseException:
        for loader in loaders.values():
            loader.close()
        raise
