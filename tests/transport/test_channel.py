"""Messages and descriptors between two processes over their private channel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import ProtocolError
from chunkdl.transport.channel import (
    channel,
    content_of,
    descriptor_of,
    receive,
    send,
)
from chunkdl.transport.memory.arena import ALIGNMENT, Arena, create_memory
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES

DEADLINE_S = 150.0
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected ends; no wait in here is endless."""
    ours, theirs = channel()
    with ours, theirs:
        ours.settimeout(DEADLINE_S)
        theirs.settimeout(DEADLINE_S)
        yield ours, theirs


def child(program: str, end: socket.socket) -> subprocess.Popen[bytes]:
    """A Python process that inherits the end as its first argument."""
    descriptor = end.fileno()
    return subprocess.Popen(
        [sys.executable, "-c", program, str(descriptor)], pass_fds=[descriptor], cwd=REPOSITORY
    )


def test_messages_keep_their_boundaries(ends: tuple[socket.socket, socket.socket]) -> None:
    """Three that were sent are three that arrive, the largest allowed one too."""
    ours, theirs = ends
    messages = [b"a", b"bb" * 100, b"c" * MAX_MESSAGE_BYTES]
    for message in messages:
        send(ours, message)
    assert [receive(theirs)[0] for _ in messages] == messages


def test_a_message_that_is_too_large_is_not_sent(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Not even in part."""
    ours, theirs = ends
    with pytest.raises(ProtocolError, match=str(MAX_MESSAGE_BYTES + 1)):
        send(ours, b"x" * (MAX_MESSAGE_BYTES + 1))
    send(ours, b"next")
    assert receive(theirs)[0] == b"next"


def test_a_descriptor_that_arrives_is_the_same_memory(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Another number for it, and the same bytes; the sender may close its own."""
    ours, theirs = ends
    descriptor = create_memory("chunkdl-test", 2 * ALIGNMENT)
    with Arena(descriptor, 2, ALIGNMENT) as arena:
        send(ours, b"here", [descriptor])
        os.close(descriptor)
        data, received = receive(theirs, descriptors=1)
        assert (data, len(received)) == (b"here", 1)
        with Arena(received[0], 2, ALIGNMENT) as other:
            os.close(received[0])
            other.slot(1)[:] = 5
            assert (arena.slot(1) == 5).all()


FILL = """
import os, socket, sys
from chunkdl.transport.memory.arena import ALIGNMENT, Arena
from chunkdl.transport.channel import receive, send

end = socket.socket(fileno=int(sys.argv[1]))
data, descriptors = receive(end, descriptors=2)
for number, descriptor in enumerate(descriptors):
    Arena(descriptor, 1, ALIGNMENT).slot(0)[:] = number + data[0]
send(end, b"done")
"""


def test_another_process_writes_into_the_memory_it_was_given(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Two arenas in one message, in their order; the writer may be gone when they are read."""
    ours, theirs = ends
    descriptors = [create_memory(f"chunkdl-test-{n}", ALIGNMENT) for n in range(2)]
    with child(FILL, theirs) as process:
        theirs.close()
        send(ours, bytes([40]), descriptors)
        assert receive(ours)[0] == b"done"
        assert process.wait(DEADLINE_S) == 0
    for number, descriptor in enumerate(descriptors):
        with Arena(descriptor, 1, ALIGNMENT) as arena:
            os.close(descriptor)
            assert (arena.slot(0) == 40 + number).all()


WAIT = """
import socket, sys
from chunkdl.transport.channel import receive, send

end = socket.socket(fileno=int(sys.argv[1]))
send(end, b"ready")
receive(end)
"""


def test_the_death_of_the_peer_is_the_end_of_the_channel(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """After SIGKILL too: what it had said arrives, then nothing, and sending is an error."""
    ours, theirs = ends
    with child(WAIT, theirs) as process:
        theirs.close()
        process_is_up, _ = receive(ours)
        process.send_signal(signal.SIGKILL)
        assert receive(ours) == (b"", [])
        process.wait(DEADLINE_S)
    assert process_is_up == b"ready"
    with pytest.raises(BrokenPipeError):
        send(ours, b"anybody there?")


def test_what_was_said_before_a_death_is_heard(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """The queue outlives its sender."""
    ours, theirs = ends
    send(theirs, b"one")
    send(theirs, b"two")
    theirs.close()
    assert [receive(ours)[0] for _ in range(3)] == [b"one", b"two", b""]


@given(st.binary(min_size=1, max_size=3 * ALIGNMENT))
def test_a_specification_is_read_as_it_was_put_there(data: bytes) -> None:
    """More than once, since the descriptor is shared by all that inherit it."""
    descriptor = descriptor_of(data)
    assert content_of(descriptor) == data
    assert content_of(descriptor) == data
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
