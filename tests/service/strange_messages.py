"""Messages that no consumer sends: random ones, mutated ones, and some that are nearly right."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import msgspec

from chunkdl.errors import ProtocolError
from chunkdl.sampling.shares import Remainder
from chunkdl.transport.protocol.codec import encode
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Join,
    Position,
    ServiceMessage,
)

KINDS: tuple[type[Message], ...] = get_args(ServiceMessage)
EDGES = (0, 1, -1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
TEXTS = ("", "train", "trials", "status", "resume", "|u1", "<f4", "O", "0" * 64, "\0", "é" * 300)
BOMBS = (
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\x91" * 3_000,
    b"\x81\x01" * 2_000,
    (b"\xdc" + (1024).to_bytes(2)) * 300,
    b"\xc7\xff\x05" + bytes(255),
)
"""Text, bytes, lists and maps that claim more than there is, or lie deep in one another."""


def value(of: Any, rng: random.Random) -> Any:
    """Something of a type of a message's field, often at an edge."""
    arms = get_args(of)
    if isinstance(of, types.UnionType) or get_origin(of) is typing.Union:
        return value(rng.choice(arms), rng)
    if get_origin(of) is tuple:
        if arms[-1] is Ellipsis:
            return tuple(value(arms[0], rng) for _ in range(rng.choice((0, 0, 1, 2, 7))))
        return tuple(value(arm, rng) for arm in arms)
    if get_origin(of) is dict:
        return {value(arms[0], rng): value(arms[1], rng) for _ in range(rng.choice((0, 1, 3)))}
    simple: dict[Any, Callable[[], Any]] = {
        int: lambda: rng.choice((rng.choice(EDGES), rng.randrange(-3, 20), rng.randrange(2**40))),
        float: lambda: rng.choice((0.0, -1.0, 1e300, float("inf"), float("nan"))),
        bool: lambda: rng.random() < 0.5,
        str: lambda: rng.choice(TEXTS),
        bytes: lambda: rng.randbytes(rng.choice((0, 1, 4, 40))),
        types.NoneType: lambda: None,
    }
    return simple[of]() if of in simple else built(of, rng)


def built(kind: type[Any], rng: random.Random) -> Any:
    """A message, or a part of one, with any content."""
    return kind(**{name: value(of, rng) for name, of in get_type_hints(kind).items()})


def near_position(rng: random.Random) -> Position:
    """One that may be possible: somewhere, with gaps, in some pass."""
    tail = rng.choice((0, 16, 17, 400, 10**6, 2**40, 2**52))
    edges = sorted({tail - rng.randrange(1, 3_000) for _ in range(2 * rng.randrange(4))})
    left = [pair for pair in zip(edges[::2], edges[1::2], strict=False) if pair[0] >= 0]
    attempts = {rng.randrange(10**6): rng.randrange(5) for _ in range(rng.randrange(3))}
    return Position(Remainder(rng.choice((0, 0, 0, 1, 2, 50)), tuple(left), tail), 0, attempts)


def near_join(rng: random.Random, token: str) -> Join:
    """A Join that is right but for some of its fields."""
    position = near_position(rng) if rng.random() < 0.5 else None
    step = rng.choice((0, 1, 5, 500, 10**6, 2**40))
    right = Join(
        SERVICE_PROTOCOL_VERSION, token, "", "trials", 0, 1, 0, 4, 2**30, "", position, step, ()
    )
    hints = get_type_hints(Join)
    wrong = rng.sample(sorted(hints), rng.randrange(4))
    return msgspec.structs.replace(right, **{name: value(hints[name], rng) for name in wrong})


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with something wrong: flipped, cut, extended, swapped, doubled, or with a bomb."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at, other = sorted((rng.randrange(len(out) + 1), rng.randrange(len(out) + 1)))
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out += rng.randbytes(rng.randrange(1, 9))
            case 3:
                out = out[at:other] + out[:at] + out[other:]
            case 4:
                out[at:at] = out[at:other]
            case _:
                out[at:other] = rng.choice(BOMBS)
    return bytes(out[: 64 * 1024])


def random_messages(rng: random.Random, token: str = "") -> Iterator[bytes]:
    """Without end: bytes, messages with any content, mutated ones, and fields of wrong types."""
    while True:
        kind = rng.randrange(8)
        if kind == 0:
            yield rng.randbytes(rng.choice((0, 1, 10, 200, 5_000)))
            continue
        message = near_join(rng, token) if kind < 3 else built(rng.choice(KINDS), rng)
        try:
            data = encode(message)
        except ProtocolError:
            continue
        if kind < 6:
            yield data if kind % 2 else mutated(data, rng)
        else:
            plain = msgpack.unpackb(data, strict_map_key=False)
            plain[rng.choice(sorted(plain))] = rng.choice((*EDGES, *TEXTS, None, [], {}, [[1]]))
            yield msgpack.packb(plain)
