"""A consumer of a service that is none: it raises an error of chunkdl, and never hangs."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from chunkdl.consumers.connect import connect
from chunkdl.errors import ChunkdlError, GetTimeout, ProtocolError, ServiceDied, ServiceRefused
from chunkdl.sampling.shares import Remainder
from chunkdl.service.addresses import lease_address
from chunkdl.transport.channel import send
from chunkdl.transport.memory.arena import aligned, create_memory
from chunkdl.transport.memory.layouts import RECORD, BatchLayout
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.engine_messages import Message
from chunkdl.transport.protocol.service_messages import (
    ArenaPassed,
    AskCatalogue,
    Attach,
    CataloguePage,
    Delivered,
    Join,
    Joined,
    LeaseOpened,
    Leave,
    Piece,
    Position,
    RowFormatKnown,
)
from chunkdl.transport.row_format import ColumnFormat, RowFormat
from tests.service.strange_messages import random_messages
from tests.service.two_ranks import addresses

ROWS, PX, SLOTS = 4, 8, 3
LAYOUT = BatchLayout(ROWS, RowFormat.of_crops(PX))
SLOT_BYTES = aligned(LAYOUT.slot_bytes)
JOINED = Joined(
    *("s" * 32, True, "shard", "0" * 64, 3, ROWS, ROWS, RowFormat.of_crops(PX), 1, 1),
    *(Position(), 0, Position(), 4, 5.0),
)
AFTER = Position(Remainder(0, (), ROWS))
PIECE = Piece(0, 0, ROWS, b"")
RIGHT = Delivered(0, 0, 0, 1, (PIECE,), AFTER)
ARENA = ArenaPassed(1, SLOTS, SLOT_BYTES)
RECORDS = bytes(ROWS * RECORD.itemsize)
PIXELS = bytes(ROWS * PX * PX * 3)
Frames = tuple[bytes, ...]


def changed(message: Any, **given: Any) -> Any:
    """A message with other fields."""
    return msgspec.structs.replace(message, **given)


def piece(**given: Any) -> Delivered:
    """A batch with one piece that is not right."""
    wrong: Delivered = changed(RIGHT, pieces=(changed(PIECE, **given),))
    return wrong


class HostileService:
    """Answers a consumer until it has joined, and then says what it is told to.

    Args:
        address: where it is.
        joined: what it says of the session.
        arena: what it says of the memory that it passes.
        memory: makes the descriptor that it passes.
        says: messages, or frames after a `Delivered`, to the way that batches come by.
    """

    def __init__(
        self,
        address: str,
        joined: Joined,
        says: tuple[Message | Frames, ...],
        arena: ArenaPassed | None,
        memory: Callable[[], int],
    ) -> None:
        self._local = address.startswith("ipc://")
        self._joined = changed(joined, local=joined.local and self._local)
        self._says, self._arena, self._memory = says, arena, memory
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.bind(address)
        self._over = os.eventfd(0)
        self._lease: socket.socket | None = None
        self._place = -1
        self._ends: list[socket.socket] = []
        if self._local:
            self._place = os.open(address.removeprefix("ipc://"), os.O_PATH)
            self._lease = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._lease.bind(lease_address(address))
            self._lease.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._over, zmq.POLLIN)
        if self._lease is not None:
            poller.register(self._lease, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._over in ready:
                return
            if self._lease is not None and self._lease.fileno() in ready:
                end, _ = self._lease.accept()
                self._ends.append(end)
                send(end, encode(LeaseOpened("t" * 32)), [self._place])
            if self._router in ready:
                identity, data = self._router.recv_multipart()
                self._answer(identity, decode_service(data))

    def _answer(self, identity: bytes, message: object) -> None:
        if isinstance(message, Join):
            self._router.send_multipart([identity, encode(self._joined)])
            if self._local and self._arena is not None:
                descriptor = self._memory()
                with suppress(OSError):
                    send(self._ends[-1], encode(self._arena), [descriptor])
                os.close(descriptor)
        elif isinstance(message, AskCatalogue):
            page = CataloguePage(0, ((7, b"seven", {}),), 0, ((b"slide", {}),))
            self._router.send_multipart([identity, encode(page)])
        if isinstance(message, AskCatalogue if self._local else Attach):
            for says in self._says:
                frames = says if isinstance(says, tuple) else (encode(says),)
                self._router.send_multipart([identity, *frames])
        elif isinstance(message, Leave) and self._local:
            self._ends[-1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        os.eventfd_write(self._over, 1)
        self._thread.join()
        os.close(self._over)
        if self._local:
            os.close(self._place)
        self._router.close(0)
        # libzmq was seen never to end one whose peer went at that moment, under load.
        term = threading.Thread(target=self._context.term, daemon=True)
        term.start()
        term.join(10)
        for end in (*self._ends, *([self._lease] if self._lease is not None else [])):
            end.close()


def memory() -> int:
    """As large as it is said to be."""
    return create_memory("chunkdl-test", SLOTS * SLOT_BYTES)


@contextmanager
def hostile(
    address: str,
    *says: Message | Frames,
    joined: Joined = JOINED,
    arena: ArenaPassed | None = ARENA,
    passed: Callable[[], int] = memory,
) -> Iterator[None]:
    """A hostile service."""
    service = HostileService(address, joined, says, arena, passed)
    try:
        yield
    finally:
        service.close()


def taken(address: str) -> None:
    """Join it and take what comes; a training loop would do no more."""
    with connect(address, connect_timeout=30, reconnect_timeout=5) as loader:
        batch = loader.next_batch(60)
        assert len(batch.patients) == ROWS
        loader.next_batch(0.5)


@pytest.mark.parametrize("which", [0, 1], ids=["ipc", "tcp"])
def test_what_this_service_says_when_it_means_well_is_taken(
    socket_folder: Path, which: int
) -> None:
    """Else the tests below would show nothing: a batch comes, and then no more."""
    address = addresses(socket_folder)[which]
    right = (RIGHT, (encode(RIGHT), RECORDS, PIXELS))[which]
    with hostile(address, right), pytest.raises(GetTimeout):
        taken(address)


WRONG_BATCHES: dict[str, Delivered] = {
    "no pieces": changed(RIGHT, pieces=()),
    "more rows than fit": changed(RIGHT, pieces=(PIECE, PIECE)),
    "rows behind the slot": piece(first=1),
    "rows before the slot": piece(first=-1),
    "no rows": piece(rows=0),
    "fewer than no rows": changed(RIGHT, pieces=(PIECE, changed(PIECE, rows=-4))),
    "very many rows": piece(rows=2**63),
    "half a number": piece(dropped=b"123"),
    "a dropped row that is none": piece(dropped=np.array([ROWS], np.int32).tobytes()),
    "a step that skips one": changed(RIGHT, step=1),
    "a position that is none": changed(RIGHT, after=Position(Remainder(0, ((5, 2),), 3))),
}
WRONG_SLOTS: dict[str, Delivered] = {
    "an unknown slot": piece(slot=SLOTS),
    "a slot before the first": piece(slot=-1),
    "a slot far away": piece(slot=2**62),
}
COLUMN = RowFormat.of_crops(PX).columns
WRONG_FRAMES: dict[str, Frames] = {
    "none": (),
    "records only": (RECORDS,),
    "too short": (RECORDS, PIXELS[1:]),
    "too long": (RECORDS, PIXELS + b"x"),
    "very long": (RECORDS, PIXELS + bytes(2**19)),
    "records too long": (RECORDS + b"x", PIXELS),
    "one too many": (RECORDS, PIXELS, b""),
    "empty": (b"", b""),
}
WRONG_SESSIONS: dict[str, dict[str, Any]] = {
    "very many rows": {"batch_rows": 2**40},
    "no rows": {"batch_rows": 0},
    "very large": {"row_format": RowFormat.of_crops(2**31)},
    "negative": {"row_format": RowFormat.of_crops(-8)},
    "no columns": {"row_format": RowFormat(())},
    "very many columns": {"row_format": RowFormat(COLUMN * 1000)},
    "one name twice": {"row_format": RowFormat(COLUMN * 2)},
    "objects": {"row_format": RowFormat.of_objects(8)},
    "never silent": {"silent_s": -1.0},
    "no number": {"silent_s": float("nan")},
    "no credit": {"credit_batches": 0},
    "no position": {"position": Position(Remainder(-1))},
}


@pytest.mark.parametrize("which", [0, 1], ids=["ipc", "tcp"])
@pytest.mark.parametrize("wrong", WRONG_BATCHES.values(), ids=WRONG_BATCHES)
def test_a_batch_that_cannot_be_is_an_error(
    socket_folder: Path, wrong: Delivered, which: int
) -> None:
    """Before a byte of it is looked at."""
    address = addresses(socket_folder)[which]
    says = (wrong, (encode(wrong), RECORDS, PIXELS))[which]
    with hostile(address, says), pytest.raises(ProtocolError):
        taken(address)


@pytest.mark.parametrize("wrong", WRONG_SLOTS.values(), ids=WRONG_SLOTS)
def test_a_slot_that_is_not_there_is_an_error(socket_folder: Path, wrong: Delivered) -> None:
    """Instead of memory that is somebody else's."""
    address = addresses(socket_folder)[0]
    with hostile(address, wrong), pytest.raises(ProtocolError):
        taken(address)


@pytest.mark.parametrize("frames", WRONG_FRAMES.values(), ids=WRONG_FRAMES)
def test_frames_of_another_size_are_an_error(socket_folder: Path, frames: Frames) -> None:
    """What is announced has to come, and no more."""
    address = addresses(socket_folder)[1]
    says = encode(RIGHT), *frames
    with hostile(address, says), pytest.raises((ProtocolError, ServiceDied)):
        taken(address)


@pytest.mark.parametrize("which", [0, 1], ids=["ipc", "tcp"])
@pytest.mark.parametrize("given", WRONG_SESSIONS.values(), ids=WRONG_SESSIONS)
def test_a_session_that_cannot_be_is_an_error(
    socket_folder: Path, given: dict[str, Any], which: int
) -> None:
    """No memory is taken for it, and nobody waits for it."""
    address = addresses(socket_folder)[which]
    with hostile(address, RIGHT, joined=changed(JOINED, **given)), pytest.raises(ProtocolError):
        taken(address)


@pytest.mark.parametrize(
    ("arena", "passed"),
    [
        (ARENA, lambda: create_memory("chunkdl-test", SLOTS * SLOT_BYTES - 4096)),
        (changed(ARENA, slots=2**50), memory),
        (changed(ARENA, slots=0), memory),
        (changed(ARENA, slot_bytes=-4096), memory),
        (changed(ARENA, slot_bytes=4096, slots=1), memory),
        (ARENA, lambda: os.eventfd(0)),
        (ARENA, lambda: os.open("/", os.O_PATH)),
    ],
    ids=["shorter", "huge", "no slots", "negative", "small slots", "no memory", "a folder"],
)
def test_memory_that_is_not_what_it_is_said_to_be_is_an_error(
    socket_folder: Path, arena: ArenaPassed, passed: Callable[[], int]
) -> None:
    """Instead of a SIGBUS in the middle of a batch."""
    address = addresses(socket_folder)[0]
    small = changed(JOINED, row_format=RowFormat.of_crops(64))
    with (
        hostile(address, RIGHT, arena=arena, passed=passed, joined=small),
        pytest.raises(ProtocolError),
    ):
        taken(address)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *((dtype, (1,)) for dtype in ("O", "|O8", "<f4,<f4", "|V64", "<f3", "nonsense", "")),
        *(("<f4", shape) for shape in ((2**40,), (2**31, 2**31), (-1,), (-1, -1), (5_000,))),
    ],
    ids=repr,
)
def test_rows_that_cannot_lie_so_are_an_error(
    socket_folder: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    """Bytes are never taken for objects, nor rows for larger ones than there is memory for."""
    address = addresses(socket_folder)[0]
    said = RowFormat((ColumnFormat("image", dtype, shape),))
    unknown = changed(JOINED, row_format=None)
    with (
        hostile(address, RowFormatKnown(said), RIGHT, joined=unknown),
        pytest.raises(ProtocolError),
    ):
        taken(address)
    other, wrong = addresses(socket_folder, "other")[0], changed(JOINED, row_format=said)
    with hostile(other, RIGHT, joined=wrong), pytest.raises(ProtocolError):
        taken(other)


def test_rows_of_nobody_are_an_error(socket_folder: Path) -> None:
    """A patient or a slide that is not in the dataset."""
    address = addresses(socket_folder)[1]
    for name in ("patient", "slide"):
        for number in (-1, 1):
            records = np.zeros(ROWS, RECORD)
            records[name][2] = number
            says = encode(RIGHT), records.tobytes(), PIXELS
            with hostile(address, says), pytest.raises(ProtocolError, match=name):
                taken(address)


def test_whatever_a_service_says_is_an_error_of_chunkdl(socket_folder: Path) -> None:
    """Random and mutated messages, after a session has begun."""
    numbers = itertools.count()
    for seed in range(150):
        address = f"ipc://{socket_folder}/{next(numbers)}"
        strange = itertools.islice(random_messages(random.Random(seed)), 40)
        says = tuple((data,) for data in strange)
        with (
            hostile(address, *says),
            suppress(ChunkdlError),
            connect(address, connect_timeout=5, reconnect_timeout=5) as loader,
        ):
            loader.next_batch(0.3)


def test_who_listens_and_says_nothing_is_given_up(socket_folder: Path) -> None:
    """In about the time that a consumer allows for."""
    for address in addresses(socket_folder):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context.socket(zmq.ROUTER) as router:
            router.bind(address)
            with pytest.raises((ServiceDied, ServiceRefused)):
                connect(address, connect_timeout=0.5)
        context.term()
