"""Whatever a service is sent: it lives, takes little memory, and disturbs no consumer.

`benchmarks.fuzz` runs the same functions with a million messages.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import zmq

from benchmarks.fuzz import GROWTH_MIB, fuzz_codec, fuzz_desk, lease_of, throw_at, undisturbed
from chunkdl.consumers.connect import connect
from chunkdl.sampling.shares import Remainder
from chunkdl.service.client.control import operate
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.engine_messages import Message, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    AskCatalogue,
    CataloguePage,
    Join,
    Joined,
    NextPass,
    Position,
    Released,
)
from tests.service.conftest import Start, row_digests
from tests.service.strange_messages import BOMBS
from tests.service.two_ranks import addresses

ANSWER_MS = 30_000


def test_bytes_are_a_message_or_a_protocol_error() -> None:
    """Random and mutated ones, with edges of 64 bits, bombs, and fields of other types."""
    assert 5_000 < fuzz_codec(seed=1, count=20_000) < 19_000


def test_a_desk_survives_every_message() -> None:
    """Members that go wrong and strangers: nothing is raised, and nothing takes long."""
    assert fuzz_desk(seed=1, count=12_000) < 5


def test_a_service_survives_strangers_that_say_anything(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """By ipc and by tcp, some of whom never listen; one consumer gets its rows as always."""
    both = addresses(socket_folder)
    service, _ = start(binds=both, max_consumers=8)
    grown_mib = undisturbed(service, both, row_reference, seed=1, count=15_000)
    assert grown_mib < GROWTH_MIB
    assert service.process.poll() is None
    assert operate(both[0], "status")["dropped"] > 1_000
    # It would wait for strangers that have joined and say nothing any more.
    service.process.kill()


@pytest.mark.parametrize("which", [0, 1], ids=["ipc", "tcp"])
def test_a_flood_from_strangers_that_never_listen_takes_little_memory(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], which: int
) -> None:
    """What they are owed is bounded, and who has a session is heard among them."""
    both = addresses(socket_folder)
    service, _ = start(binds=both)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    flood = []
    with connect(both[0]) as loader:
        rows = row_digests(loader.next_batch(60))
        before = psutil.Process(service.process.pid).memory_info().rss
        for _ in range(2):
            end = context.socket(zmq.DEALER)
            # It takes what comes until the kernel's buffers are full, and gives none of it away.
            end.setsockopt(zmq.RCVHWM, 1)
            end.connect(both[which])
            flood.append(end)
        # Each is answered with what would be right instead.
        wrong = Join(0, "", "", "train", 0, 1, 0, 4, 2**30, "", None, 0, ())
        for _ in range(30):
            for end in flood:
                for _ in range(1_000):
                    end.send(encode(wrong))
            rows += row_digests(loader.next_batch(60))
        grown = psutil.Process(service.process.pid).memory_info().rss - before
    context.destroy(0)
    assert rows == list(row_reference[: len(rows)])
    assert grown < 6 * 2**20


@pytest.mark.parametrize("which", [0, 1], ids=["ipc", "tcp"])
def test_bytes_that_are_no_zeromq_end_nothing(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...], which: int
) -> None:
    """Nothing, half a greeting, another protocol, a frame that claims 16 EiB."""
    both = addresses(socket_folder)
    start(binds=both)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    with connect(both[0]) as loader:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", greeting[:20], greeting, greeting + ready):
            throw_at(both[which], data)
        for frame in (b"\x02" + b"\xff" * 8, b"\x02" + (2**30).to_bytes(8), *BOMBS):
            throw_at(both[which], greeting + ready + frame)
        rows = [row for _ in range(5) for row in row_digests(loader.next_batch(60))]
    assert rows == list(row_reference[: len(rows)])


HUGE = (2**31, 2**53, 2**62, 2**63 - 1, 2**64 - 1)


def positions() -> list[tuple[Position, int]]:
    """Positions where no engine can begin, and steps."""
    far = [(Position(Remainder(0, (), row)), 0) for row in HUGE[2:]]
    passes = [(Position(Remainder(epoch)), 0) for epoch in HUGE]
    steps = [(Position(), step) for step in (-1, *HUGE[1:])]
    gaps = [(Position(Remainder(0, ((0, 1),), tail)), 0) for tail in (2**30, 2**62)]
    calls = [(Position(Remainder(), n), 0) for n in (-1, 41, *HUGE)]
    attempts = [
        (Position(Remainder(), 0, {a: b}), 0) for a, b in ((-1, 1), (1, -1), (1, 2**62), (2**62, 1))
    ]
    many = Position(Remainder(), 0, {2**40 + ordinal: 2**40 for ordinal in range(3_000)})
    wrong = [(Position(Remainder(0, rows, 9)), 0) for rows in (((3, 1),), ((5, 12),), ((-4, 2),))]
    return [*far, *passes, *steps, *gaps, *calls, *attempts, *wrong, (many, 0)]


def test_a_position_where_no_engine_can_begin_is_refused(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """The group stays where it was, and its engine is well."""
    _, address = start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    version, much = SERVICE_PROTOCOL_VERSION, 2**30
    end = context.socket(zmq.DEALER)
    end.connect(address)
    lease, token = lease_of(address)

    def answer(message: Message) -> Message:
        end.send(encode(message))
        assert end.poll(ANSWER_MS)
        return decode_service(end.recv())

    for group in ("train", "trials"):
        for position, step in positions():
            join = Join(version, token, "", group, 0, 1, 0, 4, much, "", position, step, ())
            assert isinstance(answer(join), Refuse), position
        for size, ranks in ((2**20, 1), (16 * 20, 1), (16, 4096), (2**62, 1)):
            join = Join(version, token, "", "train", 0, ranks, size, 4, much, "", None, 0, ())
            assert isinstance(answer(join), Refuse), (size, ranks)
    with connect(address) as loader:
        rows = row_digests(loader.next_batch(60))
        right = Join(version, token, "", "trials", 0, 1, 0, 4, much, "", None, 0, ())
        assert isinstance(answer(right), Joined)
        before = operate(address, "status")["dropped"]
        # A member asks for what there is not.
        for strange in (
            AskCatalogue(-1, -1),
            NextPass(2**62),
            NextPass(-1),
            Released((2**63,)),
            Released((-1, -1)),
        ):
            end.send(encode(strange))
        while not isinstance(page := answer(AskCatalogue(2**63, 2**64 - 1)), CataloguePage):
            pass
        assert (page.patients, page.slides) == ((), ())
        for _ in range(10):
            rows += row_digests(loader.next_batch(60))
        assert operate(address, "status")["dropped"] == before + 5
    context.destroy(0)
    lease.close()
    assert rows == list(row_reference[: len(rows)])
