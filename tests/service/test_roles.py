"""What a key allows, by real sockets and keys; and what the first holder of a rank is told."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from chunkdl.consumers.connect import connect
from chunkdl.errors import GetTimeout, ServiceRefused
from chunkdl.service.client.control import operate
from chunkdl.service.keys import (
    ClientKeys,
    Keys,
    create_keys,
    load_client_keys,
    load_public_key,
    load_server_keys,
)
from chunkdl.transport.protocol.codec import decode_frames, encode
from chunkdl.transport.protocol.engine_messages import Message, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Join,
    Operate,
    OperatorAnswer,
)
from chunkdl_workers.doors import Doors
from tests.service.conftest import Start, row_digests
from tests.service.consumer_program import lines_of
from tests.service.test_service_consumers import BATCH, Begin, begin
from tests.service.two_ranks import addresses, members

__all__ = ["begin"]

NEVER_S = 600.0
ANSWER_MS = 60_000
Eventually = Callable[..., bool]


class KeyFolder:
    """Files of a service with keys: of the server, of consumers and of operators."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = folder / "clients"
        self.operators = self.clients / "operators"
        for made in (folder, self.clients, self.operators):
            made.mkdir(mode=0o700)
        create_keys("server", folder)

    def client(self, name: str, place: Path) -> ClientKeys:
        """A new client, whose public key is put there."""
        public, secret = create_keys(name, self.folder)
        public.rename(place / public.name)
        return ClientKeys(*load_client_keys(secret), load_public_key(self.folder / "server.key"))

    def of_server(self) -> Keys:
        """What a service reads that starts now."""
        return load_server_keys(self.folder / "server.key_secret", self.clients)


@pytest.fixture
def keys(socket_folder: Path) -> KeyFolder:
    """Keys of a service that nobody has yet."""
    return KeyFolder(socket_folder / "keys")


def said_to(address: str, keys: ClientKeys, claims: list[bytes], *messages: Message) -> list[str]:
    """What a program that says what it likes is answered: why it is refused, or the answer's kind.

    Args:
        address: of the service.
        keys: that it proves.
        claims: of itself, "X-Name:value", which libzmq sends with the handshake.
        messages: that it says, each over a connection of its own.
    """
    answers = []
    for message in messages:
        with zmq.Context() as context, context.socket(zmq.DEALER) as end:
            end.linger = 0
            for claim in claims:
                end.setsockopt(zmq.METADATA, claim)
            # The name that the other side is asked to know it by.
            end.setsockopt(zmq.IDENTITY, b"operators/boss.key")
            end.curve_publickey, end.curve_secretkey = keys.public.encode(), keys.secret.encode()
            end.curve_serverkey = keys.server.encode()
            end.connect(address)
            end.send(encode(message))
            assert end.poll(ANSWER_MS), "the service says nothing"
            answer = decode_frames(end.recv_multipart())
            answers.append(answer.reason if isinstance(answer, Refuse) else type(answer).__name__)
    return answers


def test_a_key_is_a_consumers_or_an_operators_by_its_file(
    start: Start, socket_folder: Path, keys: KeyFolder, row_reference: tuple[str, ...]
) -> None:
    """A consumer gets its rows and the status, and steers nothing, whatever it says of itself."""
    alice, bob = keys.client("alice", keys.clients), keys.client("bob", keys.clients)
    boss = keys.client("boss", keys.operators)
    local, remote = addresses(socket_folder)
    start(binds=(local, remote), keys=keys.of_server())
    with connect(remote, keys=alice) as loader:
        rows = row_digests(loader.next_batch(60))
        for verb in ("drain", "pause", "resume"):
            with pytest.raises(ServiceRefused, match=rf"{verb} is for operators.*bob\.key"):
                operate(remote, verb, keys=bob, group="train")
            with pytest.raises(ServiceRefused, match=r"folder 'operators' .* started again"):
                operate(remote, verb, keys=bob)
        with pytest.raises(ServiceRefused, match=r"there already, held by .*key alice\.key"):
            connect(remote, keys=bob)
        with pytest.raises(ServiceRefused, match=r"Taking it is for operators.*bob\.key"):
            connect(remote, keys=bob, take_over=True)
        version = SERVICE_PROTOCOL_VERSION
        forged = said_to(
            remote,
            bob,
            [b"X-User-Id:" + boss.public.encode(), b"X-Peer-Address:127.0.0.1"],
            Operate(version, "", "drain", ""),
            Operate(version, boss.public, "drain", ""),
            Join(
                *(version, "", "", "train", 0, 1, 0, 4, 2**30, "", None, 0, ()),
                consumer=boss.public[:32],
                take_over=True,
            ),
            Operate(version, "", "status", ""),
        )
        assert "bob.key" in forged[0]
        assert "the token is not known" in forged[1]
        assert "bob.key" in forged[2]
        assert forged[3] == OperatorAnswer.__name__
        rows += row_digests(loader.next_batch(60))

        assert operate(remote, "pause", keys=boss)["groups"]["train"]["paused"]
        with pytest.raises(GetTimeout):
            while True:
                rows += row_digests(loader.next_batch(0.5))
        assert not operate(remote, "resume", keys=boss)["groups"]["train"]["paused"]
        rows += row_digests(loader.next_batch(60))
        assert rows == list(row_reference[: len(rows)])
        (member,) = members(local)
        assert "the consumer's key alice.key, at " in member["who"]

        with connect(remote, keys=boss, take_over=True) as taker:
            words = r"taken by the operator's key operators/boss"
            # It is told with the next thing that it hears, and then at once, though it was sent
            # batches before.
            with pytest.raises(ServiceRefused, match=words):
                loader.stats(60)
            with pytest.raises(ServiceRefused, match=words):
                loader.next_batch(60)
            taker.next_batch(60)
    assert operate(remote, "drain", keys=boss)["draining"]


def test_who_looks_at_keys_ends_with_the_sockets(socket_folder: Path, keys: KeyFolder) -> None:
    """A thread of each service, which goes with it."""
    _, remote = addresses(socket_folder)

    def looking() -> int:
        return sum(thread.name == "chunkdl-keys" for thread in threading.enumerate())

    for _ in range(3):
        doors = Doors((remote,), keys.of_server())
        assert looking() == 1
        doors.close()
        assert looking() == 0


def test_an_operators_key_that_is_taken_away_is_one_no_longer(
    start: Start, socket_folder: Path, keys: KeyFolder
) -> None:
    """With the next start of the service; moved to the consumers, its owner is one of these."""
    boss, gone = keys.client("boss", keys.operators), keys.client("gone", keys.operators)
    local, remote = addresses(socket_folder)
    service, _ = start(binds=(local, remote), keys=keys.of_server())
    for key in (boss, gone):
        operate(remote, "resume", keys=key, timeout_s=60)
    service.close()
    (keys.operators / "boss.key").rename(keys.clients / "boss.key")
    (keys.operators / "gone.key").unlink()
    start(binds=(local, remote), keys=keys.of_server())
    with pytest.raises(ServiceRefused, match="resume is for operators"):
        operate(remote, "resume", keys=boss, timeout_s=60)
    with pytest.raises(ServiceRefused, match="does not accept the key of this client"):
        operate(remote, "status", keys=gone, timeout_s=60)


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_the_first_holder_of_a_rank_is_told_who_took_it(
    start: Start, socket_folder: Path, which: int, row_reference: tuple[str, ...]
) -> None:
    """From its next `get` on, again and again; the other goes on behind what it had given back."""
    both = addresses(socket_folder)
    start(binds=both)
    with connect(both[which]) as first:
        rows = row_digests(first.next_batch(60))
        with connect(both[0], take_over=True) as second:
            words = f"rank 0 of .* taken by process {os.getpid()} of user {os.getuid()}"
            # The next thing that it hears.
            with pytest.raises(ServiceRefused, match=words):
                first.stats(60)
            for _ in range(3):
                with pytest.raises(ServiceRefused, match=words):
                    first.next_batch(60)
            theirs = [row for _ in range(5) for row in row_digests(second.next_batch(60))]
    begins = row_reference.index(theirs[0])
    assert begins <= len(rows)
    assert theirs == list(row_reference[begins : begins + len(theirs)])


@pytest.fixture
def stderr_of(begin: Begin, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What the consumers of this test have said on stderr."""
    del begin
    said = ""

    def read() -> str:
        nonlocal said
        said += capfd.readouterr().err
        return said

    return read


@pytest.mark.parametrize("which", [0, 1], ids=["local", "tcp"])
def test_a_frozen_consumer_is_told_when_it_wakes(
    start: Start,
    socket_folder: Path,
    tmp_path: Path,
    begin: Begin,
    eventually: Eventually,
    stderr_of: Callable[[], str],
    which: int,
) -> None:
    """Its rank was taken once it was silent, and may be free again: it goes on in no case."""
    both = addresses(socket_folder)
    start(binds=both, silent_s=1.0, grace_s=NEVER_S)
    file = tmp_path / "frozen"
    frozen: subprocess.Popen[bytes] = begin(both[which], file, *BATCH)
    assert eventually(lambda: len(lines_of(file)) >= 5, 60)
    frozen.send_signal(signal.SIGSTOP)
    assert eventually(lambda: [m["state"] for m in members(both[0])] == ["suspect"], 60)
    with connect(both[0], batch_size=8) as second:
        second.next_batch(60)
    assert eventually(lambda: "open" not in [m["state"] for m in members(both[0])], 60)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 1
    told = f"rank 0 of group train was taken by process {os.getpid()} of user"
    assert eventually(lambda: told in stderr_of(), 60)
    assert "ServiceRefused: the service has ended the session" in stderr_of()
