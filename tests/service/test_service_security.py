"""Who may use a service, and what strangers achieve at its doors: nothing."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import zmq

from benchmarks.fuzz import lease_of
from chunkdl.consumers.connect import connect
from chunkdl.errors import ServiceRefused
from chunkdl.service.client.control import operate
from chunkdl.service.keys import AllowedClient, ClientKeys, Keys
from chunkdl.service.process import ServiceProcess
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.protocol.codec import MAX_MESSAGE_BYTES, decode_service, encode
from chunkdl.transport.protocol.engine_messages import Message, Ping, Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Attach,
    Join,
    Joined,
    JoinFirst,
    Leave,
    NextPass,
    Operate,
    OperatorAnswer,
    Released,
    ServiceMessage,
    Waits,
)
from tests.service.conftest import Start, row_digests
from tests.service.stand_alone import begin_server
from tests.service.two_ranks import addresses

ANSWER_MS = 20_000
Pair = tuple[str, str]

# ---- Keys


def key_pair() -> Pair:
    """A public and a secret key."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


SERVER, CLIENT, STRANGER = key_pair(), key_pair(), key_pair()
KEYS = Keys(public=SERVER[0], secret=SERVER[1], allowed=(AllowedClient("me.key", CLIENT[0]),))


def client_keys(pair: Pair, server: str) -> ClientKeys:
    """Of a client, for a service."""
    return ClientKeys(public=pair[0], secret=pair[1], server=server)


def test_an_allowed_client_gets_its_rows_and_a_local_one_needs_no_key(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Both at once, the same rows, of a service whose tcp address is protected."""
    local, remote = addresses(socket_folder)
    start(binds=(local, remote), keys=KEYS)
    keys = client_keys(CLIENT, SERVER[0])
    with connect(remote, "trials", keys=keys) as far, connect(local, "trials") as near:
        for step in range(10):
            rows = list(row_reference[step * 16 : step * 16 + 16])
            assert row_digests(far.next_batch(60)) == rows
            assert row_digests(near.next_batch(60)) == rows
    assert operate(remote, "status", keys=keys)["joined"] == 2


@pytest.mark.parametrize(
    ("protected", "keys", "why"),
    [
        (True, client_keys(STRANGER, SERVER[0]), "does not accept the key of this client"),
        (True, client_keys(CLIENT, STRANGER[0]), "is this its public key"),
        (True, None, "it is protected, give keys"),
        (False, client_keys(CLIENT, SERVER[0]), "is it protected"),
    ],
    ids=["unknown client", "wrong service", "no keys", "needless keys"],
)
def test_who_has_the_wrong_keys_is_told_so_at_once(
    start: Start, socket_folder: Path, protected: bool, keys: ClientKeys | None, why: str
) -> None:
    """Long before the time is up in which the service might have come."""
    local, remote = addresses(socket_folder)
    start(binds=(local, remote), keys=KEYS if protected else None)
    began = time.monotonic()
    with pytest.raises(ServiceRefused, match=why):
        connect(remote, keys=keys, connect_timeout=600)
    with pytest.raises(ServiceRefused, match=why):
        operate(remote, "status", keys=keys, timeout_s=600)
    assert time.monotonic() - began < 60
    assert operate(local, "status")["joined"] == 0


@contextmanager
def observed(address: str) -> Iterator[tuple[str, bytearray]]:
    """An address that leads to another one, and what went through, in both directions."""
    seen = bytearray()
    host, port = address.removeprefix("tcp://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends: list[socket.socket] = []

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    seen.extend(data)
                    sink.sendall(data)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = server.accept()
                    far = socket.create_connection((host, int(port)))
                    ends.extend((near, far))
                    for pair in ((near, far), (far, near)):
                        threads.append(threading.Thread(target=pump, args=pair))
                        threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", seen
        server.shutdown(socket.SHUT_RDWR)
        threads[0].join()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads[1:]:
            thread.join()
        for end in ends:
            end.close()


@pytest.mark.parametrize("protected", [True, False])
def test_who_listens_on_the_network_sees_no_plain_text(
    start: Start, socket_folder: Path, protected: bool
) -> None:
    """Neither names of slides nor messages nor records; without keys all of that is seen."""
    local, remote = addresses(socket_folder)
    start(binds=(local, remote), keys=KEYS if protected else None)
    with (
        observed(remote) as (address, seen),
        connect(address, keys=client_keys(CLIENT, SERVER[0]) if protected else None) as loader,
    ):
        pixels = loader.next_batch(60)["image"].permute(0, 2, 3, 1).contiguous().numpy()
    secrets = (b"slide-0.tif", b"Joined", b"train", pixels[0].tobytes()[:64])
    assert [secret in seen for secret in secrets] == [not protected] * 4
    assert len(seen) > pixels.nbytes


# ---- Strangers


class Peer:
    """A connection to the router of a service that says what it likes."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.end = self._context.socket(zmq.DEALER)
        self.end.connect(address)

    def say(self, message: Message) -> None:
        """Send a message."""
        self.end.send(encode(message))

    def hear(self) -> ServiceMessage:
        """The next message; how long a machine takes to make a batch is no matter here."""
        while True:
            assert self.end.poll(ANSWER_MS), "the service says nothing"
            if not isinstance(heard := decode_service(self.end.recv()), Waits):
                return heard

    def ask(self, message: Message) -> ServiceMessage:
        """What comes next after a message."""
        self.say(message)
        return self.hear()

    def refused(self, message: Message) -> str:
        """Why a message is refused."""
        answer = self.ask(message)
        assert isinstance(answer, Refuse), answer
        return answer.reason

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(0)


def join(token: str = "", group: str = "trials", /, **given: Any) -> Join:
    """A Join that is right but for what is given."""
    right = Join(SERVICE_PROTOCOL_VERSION, token, "", group, 0, 1, 0, 4, 2**30, "", None, 0, ())
    return msgspec.structs.replace(right, **given)


def dropped(address: str) -> int:
    """How many messages the service has dropped."""
    number: int = operate(address, "status")["dropped"]
    return number


@contextmanager
def honest(address: str, row_reference: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    """A consumer that takes some batches when it is called; they must be the right ones."""
    rows: list[str] = []
    with connect(address) as loader:

        def go_on() -> None:
            for _ in range(6):
                rows.extend(row_digests(loader.next_batch(60)))
            assert rows == list(row_reference[: len(rows)])

        go_on()
        yield go_on
        go_on()


def test_who_did_not_show_its_user_gets_nothing_by_ipc(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """Without a token, or with one that nobody gave, one neither joins nor operates."""
    _, address = start()
    with honest(address, row_reference) as go_on, Peer(address) as peer:
        before = dropped(address)
        for token, why in (("", "needs a token of the lease socket"), ("0" * 32, "not known")):
            for message in (
                join(token),
                join(token, "train"),
                Operate(SERVICE_PROTOCOL_VERSION, token, "status", ""),
                Operate(SERVICE_PROTOCOL_VERSION, token, "drain", ""),
            ):
                assert why in peer.refused(message)
        assert dropped(address) == before + 8
        go_on()
        status = operate(address, "status")
        assert (status["joined"], status["draining"]) == (1, False)


def test_a_token_is_over_with_its_lease_connection(
    start: Start, eventually: Callable[..., bool]
) -> None:
    """Who has closed it joins with it no more; nor does a second connection beside the first."""
    _, address = start()
    lease, token = lease_of(address)
    with Peer(address) as peer, Peer(address) as second, lease:
        assert isinstance(peer.ask(join(token)), Joined)
        assert "has its session" in second.refused(join(token))
        lease.close()
        assert eventually(lambda: "not known" in second.refused(join(token)))


def test_what_makes_no_sense_is_dropped_and_disturbs_nobody(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """Each of these is counted or refused, and the honest consumer gets its rows."""
    both = addresses(socket_folder)
    start(binds=both, max_consumers=4)
    local = both[0]
    operator_lease, operator_token = lease_of(local)
    with honest(local, row_reference) as go_on, operator_lease:
        for address in both:
            lease, token = lease_of(local) if address == local else (None, "")
            with Peer(address) as peer, Peer(address) as other:

                def count(peer: Peer = peer) -> int:
                    # By the same connection, so that it is heard after what was said before.
                    wish = Operate(SERVICE_PROTOCOL_VERSION, operator_token, "status", "")
                    peer.say(wish)
                    while not isinstance(answer := peer.hear(), OperatorAnswer):
                        pass
                    return int(json.loads(answer.status)["dropped"])

                def drops(*frames: bytes | Message, peer: Peer = peer) -> None:
                    before = count(peer)
                    data = [f if isinstance(f, bytes) else encode(f) for f in frames]
                    peer.end.send_multipart(data)
                    assert count(peer) == before + 1, frames

                assert isinstance(peer.ask(Ping()), JoinFirst)
                assert isinstance(peer.ask(Released((0, 1, 2))), JoinFirst)
                drops(Attach(""))
                drops(Attach("0" * 32))
                drops(b"")
                drops(b"\x00garbage")
                drops(Ping(), Ping())
                drops(b"", join(token))
                wrong: dict[str, Any]
                for wrong, why in (
                    ({"version": 1}, "speaks protocol 1"),
                    ({"rows_hash": "0" * 64}, "expects another stream"),
                    ({"group": "nobody"}, "there is no group"),
                    ({"rank": 7}, "out of range"),
                    ({"group": "train", "rank": 0}, "rank 0 of group train is there already"),
                ):
                    assert why in peer.refused(join(token, **wrong))
                go_on()
                joined = peer.ask(join(token))
                assert isinstance(joined, Joined)
                drops(join(token))
                drops(join(token, session=joined.session))
                drops(NextPass(1))
                drops(Released((2**40,)))
                # Of what it has, once and no more; what others say in its place is not heard.
                if address == local:
                    assert peer.hear()
                    assert isinstance(other.ask(Released((0,))), JoinFirst)
                    peer.say(Released((0,)))
                    drops(Released((0,)))
                    drops(Attach(joined.session), peer=peer)
                drops(joined)
                go_on()
                peer.say(Leave(0, 0))
                count()
            if lease is not None:
                lease.close()


def test_a_frame_that_is_too_large_ends_its_connection_only(
    start: Start, row_reference: tuple[str, ...]
) -> None:
    """ZeroMQ hangs up on who sends more than a message may have."""
    _, address = start()
    with honest(address, row_reference) as go_on, Peer(address) as peer:
        assert isinstance(peer.ask(Ping()), JoinFirst)
        events = peer.end.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.end.send(bytes(MAX_MESSAGE_BYTES))
        assert isinstance(peer.ask(Ping()), JoinFirst)
        assert not events.poll(0)
        peer.end.send(bytes(MAX_MESSAGE_BYTES + 1))
        assert events.poll(ANSWER_MS)
        peer.end.disable_monitor()
        events.close(0)
        go_on()


def test_a_flood_of_nonsense_writes_few_lines(
    start: Start, row_reference: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """However many kinds of it there are; each is still counted."""
    service, address = start()
    with honest(address, row_reference) as go_on, Peer(address) as peer:
        for number in range(4_000):
            peer.end.send(b"\x81\xa4type\xa6" + b"%06d" % number)
            peer.refused(join(f"{number:032x}"))
        go_on()
        assert dropped(address) == 8_000
    service.close()
    lines = capfd.readouterr().err.splitlines()
    assert 2 < len([line for line in lines if "dropped" in line]) < 200


# ---- Files


def test_sockets_are_for_their_user_alone(start: Start, socket_folder: Path) -> None:
    """Whatever the umask of the shell was, and none is left when the service has ended."""
    before = os.umask(0)
    try:
        service, _ = start()
    finally:
        os.umask(before)
    files = [path for path in socket_folder.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert len(files) == 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    service.close()
    assert list(socket_folder.iterdir()) == []


def test_the_sockets_of_a_killed_service_are_replaced(
    start: Start, socket_folder: Path, row_reference: tuple[str, ...]
) -> None:
    """The next one at the address serves at once."""
    address = f"ipc://{socket_folder}/same"
    first, _ = start(binds=(address,))
    first.process.kill()
    first.process.wait(30)
    assert len(list(socket_folder.iterdir())) == 2
    start(binds=(address,))
    with connect(address) as loader:
        assert row_digests(loader.next_batch(60)) == list(row_reference[:16])


def run_server(spec: ServiceSpec) -> tuple[int, str]:
    """Status and words of a server that cannot start."""
    with begin_server(spec, stderr=subprocess.PIPE) as server:
        told = server.communicate(timeout=60)[1]
    return server.returncode, told


def test_an_address_in_use_is_left_alone(
    service_spec: Callable[..., ServiceSpec],
    socket_folder: Path,
    row_reference: tuple[str, ...],
) -> None:
    """By another service: status 3, and that one serves on; a file that is not a socket stays."""
    both = addresses(socket_folder)
    service = ServiceProcess(service_spec(binds=both))
    try:
        for address in both:
            status, words = run_server(service_spec(binds=(address,)))
            assert status == 3
            assert "another service is at" in words or "in use by another program" in words
        with connect(both[0]) as loader:
            assert row_digests(loader.next_batch(60)) == list(row_reference[:16])
    finally:
        service.close()
    for name in ("notes", "notes.lease"):
        file = socket_folder / name
        file.write_text("mine")
        status, words = run_server(service_spec(binds=(f"ipc://{socket_folder}/notes",)))
        assert status == 2
        assert "is not a socket" in words
        assert file.read_text() == "mine"
        file.unlink()
