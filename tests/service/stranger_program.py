"""What another user of the machine says to sockets that are not for it; for `test_strangers`.

Run with Unix sockets as `/proc/net/unix` shows them, "NAME:TYPE", or "tcp://127.0.0.1:PORT".
Prints as JSON, of each, how many connections it tried, how many came about, and how many of those
that were listened to said anything.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

NOBODY = 65534
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\x00" + bytes(31)
GREETING_BYTES = len(GREETING)
CURVE = GREETING.replace(b"NULL\0", b"CURVE")
HELLO = b"\x04\xc8\x05HELLO" + bytes(194)
_DEALER = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY = b"\x04" + bytes([len(_DEALER)]) + _DEALER
PING = b"\x04\x07\x04PING\x00\x64"
FLOOD = (b"\x00\x00" * 1_500 + PING * 20) * 20
"""Whatever is read of it at once has more messages than are kept, and heartbeats behind them."""
PIECE_BYTES = 60_000
WAIT_S = 10.0
"""For an answer that should not come, or the end of the connection."""


def sayings(rng: random.Random) -> Iterator[list[bytes]]:
    """Without end, what is said over one connection, in pieces, before it hangs up."""
    piece = b"\x03" + struct.pack(">Q", PIECE_BYTES) + bytes(PIECE_BYTES)
    whole = (
        # A message of the protocol that is never answered; the sender is gone at once.
        [GREETING, READY, b"\x00\x0b\x81\xa4type\xa4Ping"],
        # libzmq 4.3.5 aborts the process that holds such messages back when their sender is gone.
        [GREETING, READY, FLOOD],
        # A message of frames without end.
        [GREETING, READY, *[piece] * 20],
        # A frame that claims 16 EiB, and one of a GiB.
        [GREETING, READY, b"\x02" + b"\xff" * 8],
        [GREETING, READY, b"\x02" + (2**30).to_bytes(8)],
        # The same in the middle of a handshake with keys, and in older protocols.
        [CURVE, FLOOD],
        [CURVE, HELLO, FLOOD],
        [CURVE, *[piece] * 20],
        [CURVE, b"\x06" + (60_000).to_bytes(8) + b"\x08INITIATE" + bytes(59_991)],
        [b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00", FLOOD],
        [b"\x01\x00" + b"\x01\x00" * 3_000],
        [b"GET / HTTP/1.1\r\n\r\n"],
        [b""],
    )
    while True:
        for pieces in whole:
            yield pieces
            # The same, cut at any byte; and something else.
            said = b"".join(pieces)[: 2 * PIECE_BYTES]
            yield [said[: rng.randrange(len(said) + 1)]]
            yield [rng.randbytes(rng.randrange(200))]


def connected(name: str) -> socket.socket | None:
    """A connection to a socket; None: the system does not let us."""
    if name.startswith("tcp://"):
        host, _, port = name.removeprefix("tcp://").rpartition(":")
        try:
            return socket.create_connection((host, int(port)), WAIT_S)
        except OSError:
            return None
    address, _, kind = name.rpartition(":")
    packets = int(kind) == socket.SOCK_SEQPACKET
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if packets else socket.SOCK_STREAM)
    end.settimeout(WAIT_S)
    try:
        end.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        end.close()
        return None
    return end


def say(end: socket.socket, pieces: list[bytes]) -> None:
    """Say it, as far as anybody takes it."""
    with suppress(OSError):
        for piece in pieces:
            end.sendall(piece)
            if piece == READY:
                # What comes before it is answered is not a message yet.
                left = GREETING_BYTES + len(READY)
                while left > 0 and (answer := end.recv(4096)):
                    left -= len(answer)


def heard(end: socket.socket) -> bytes:
    """What comes back, until the connection ends."""
    try:
        return end.recv(4096)
    except ConnectionError:
        return b""


def main() -> None:
    """Become a stranger and pester every address in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--user", type=int, default=NOBODY)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("names", nargs="+")
    given = parser.parse_args()
    # For addresses by tcp; another user may not be able to read the standard library.
    "".encode("idna")
    if given.user != os.getuid():
        os.setgroups([])
        os.setgid(given.user)
        os.setuid(given.user)
    told: dict[str, dict[str, int]] = {
        name: {"connected": 0, "messages": 0, "answers": 0} for name in given.names
    }
    for name, counts in told.items():
        said = sayings(random.Random(given.seed))
        for pieces in itertools.islice(said, given.messages):
            counts["messages"] += 1
            end = connected(name)
            if end is None:
                continue
            with end:
                counts["connected"] += 1
                listens = counts["connected"] % 16 == 1
                if listens:
                    # Before it has said anything, which no socket for strangers would mind.
                    counts["answers"] += bool(heard(end))
                say(end, pieces)
        # Whoever answers this one has taken in the others.
        end = connected(name)
        if end is not None:
            with end:
                counts["answers"] += bool(heard(end))
    print(json.dumps({"user": os.getuid(), "told": told}))


if __name__ == "__main__":
    main()
