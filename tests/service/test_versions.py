"""A service and a consumer of different versions of chunkdl: both are named, nobody waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from chunkdl.consumers.connect import connect
from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.engine import coordinator_process
from chunkdl.errors import OtherVersion, StateError
from chunkdl.service.addresses import lease_address
from chunkdl.service.client.control import operate
from chunkdl.transport.channel import send
from chunkdl.transport.protocol.engine_messages import PROTOCOL_VERSION
from chunkdl.transport.protocol.service_messages import SERVICE_PROTOCOL_VERSION
from tests.service.conftest import Start
from tests.service.two_ranks import addresses

ANSWER_MS = 20_000
OTHER = SERVICE_PROTOCOL_VERSION + 1


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Join", "version": OTHER},
        {"type": "Join", "version": OTHER, "rank": "0", "colour": [[1]]},
        {"type": "Enter", "version": OTHER},
        {"type": "Operate", "version": OTHER, "verb": 5},
        {"type": "Join", "version": SERVICE_PROTOCOL_VERSION, "rank": "0"},
        {"type": "Join", "version": "two"},
    ],
    ids=str,
)
def test_who_speaks_another_version_is_told_both(
    start: Start, socket_folder: Path, message: dict[str, Any]
) -> None:
    """Whatever the rest of its first message is; by ipc and by tcp."""
    both = addresses(socket_folder)
    start(binds=both, insecure=True)
    context = zmq.Context()
    for address in both:
        with context.socket(zmq.DEALER) as peer:
            peer.setsockopt(zmq.LINGER, 0)
            peer.connect(address)
            peer.send(msgpack.packb(message))
            assert peer.poll(ANSWER_MS), "nobody answers"
            answer = msgpack.unpackb(peer.recv())
        assert answer["type"] == "Refuse"
        assert f"protocol {message['version']}" in answer["reason"]
        assert f"{SERVICE_PROTOCOL_VERSION}" in answer["reason"]
        assert "install the same chunkdl on both" in answer["reason"]
    context.term()


@pytest.mark.parametrize("which", ["sampling", "reading"])
def test_the_state_of_other_rules_is_refused_with_the_reason(start: Start, which: str) -> None:
    """By a consumer of a service too; where it stands, it goes on."""
    _, address = start()
    with connect(address) as loader:
        loader.next_batch(60)
        state = loader.state_dict()
        other = {**state, "rules": {**state["rules"], which: 99}}
        with pytest.raises(StateError, match=rf"rules of {which}.* \(version 99 in the state"):
            loader.load_state_dict(other)
        loader.next_batch(60)
        loader.load_state_dict(state)
        loader.next_batch(60)


def test_a_coordinator_of_another_version_says_so(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When chunkdl was replaced while a training runs, whose next service is of the new one."""
    monkeypatch.setattr(coordinator_process, "PROTOCOL_VERSION", 99)
    both = f"speaks protocol {PROTOCOL_VERSION}, the one that has started it 99"
    with (
        pytest.raises(OtherVersion, match=both),
        LightDL(coordinate_dataset, **small_stream) as loader,
    ):
        loader.next_batch(60)


@contextmanager
def strange_service(folder: Path, first: dict[str, Any]) -> Iterator[str]:
    """Something of another version, which begins with that on its lease socket."""
    address = f"ipc://{folder}/strange"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(lease_address(address))
        listener.listen(1)

        def answer() -> None:
            end, _ = listener.accept()
            with end:
                send(end, msgpack.packb(first))

        thread = threading.Thread(target=answer)
        thread.start()
        yield address
        thread.join()


@pytest.mark.parametrize("who", ["consumer", "operator"])
def test_a_consumer_names_both_versions_where_the_service_is_another(
    socket_folder: Path, who: str
) -> None:
    """At once, out of the first word of the service."""
    first = {"type": "LeaseOpened", "version": OTHER, "ticket": b"other"}
    both = f"speaks protocol {OTHER}, this one {SERVICE_PROTOCOL_VERSION}"
    with (
        strange_service(socket_folder, first) as address,
        pytest.raises(OtherVersion, match=both),
    ):
        connect(address) if who == "consumer" else operate(address, "status")
