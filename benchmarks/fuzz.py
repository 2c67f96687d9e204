"""Does a service survive everything that it may be sent? ``python -m benchmarks.fuzz``.

Sends random and mutated messages to the codec, to the desk of a service, and over many connections
to a running service with one honest consumer; as root also as another user, to every kind of
socket: of an embedded service, of a service at a path and at an abstract name, of their engines,
and tcp with keys. Prints a line for each, and ends with 1 where a promise was broken: nothing but
`ProtocolError`, bounded memory, no byte for a stranger, and for the consumer the undisturbed rows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import zmq

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.consumers.connect import connect
from chunkdl.consumers.loader import Loader
from chunkdl.errors import ProtocolError
from chunkdl.service.addresses import lease_address
from chunkdl.service.configure import configure_service
from chunkdl.service.keys import create_keys, load_server_keys
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.service_messages import LeaseOpened, Operate
from tests.conftest import ragged_mask
from tests.service.conftest import GROUPS, arguments, row_digests
from tests.service.desk_under_fire import BATCH_ROWS, CALLS, DeskUnderFire
from tests.service.strange_messages import KINDS, random_messages
from tests.service.strangers import doors_without_a_name, listening, size_of, strangers, told

SEND_TIMEOUT_S = 60.0
GROWTH_MIB = 64.0
"""Of the service, at most."""

# ---- The codec and the desk


def fuzz_codec(seed: int, count: int) -> int:
    """How many of so many messages are none; anything but a `ProtocolError` is raised."""
    refused = 0
    for data in itertools.islice(random_messages(random.Random(seed)), count):
        try:
            message = decode_service(data)
        except ProtocolError:
            refused += 1
        else:
            assert isinstance(message, KINDS)
    return refused


def fuzz_desk(seed: int, count: int) -> float:
    """The longest that a desk took over one of so many messages, seconds; errors are raised."""
    fired = [DeskUnderFire(seed + number, finite=bool(number)) for number in range(2)]
    for one in fired:
        one.say(count // 2)
    return max(one.longest_s for one in fired)


# ---- A running service


def lease_of(address: str) -> tuple[socket.socket, str]:
    """A connection to the lease socket of a local service, and the token that it gave."""
    lease = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lease.settimeout(SEND_TIMEOUT_S)
    lease.connect(lease_address(address))
    opened = decode_service(lease.recv(65536))
    assert isinstance(opened, LeaseOpened)
    return lease, opened.token


def throw_at(address: str, data: bytes) -> None:
    """Bytes that are no ZeroMQ, at the address."""
    local = address.startswith("ipc://")
    end = socket.socket(socket.AF_UNIX if local else socket.AF_INET)
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with end, suppress(ConnectionError, TimeoutError):
        end.settimeout(SEND_TIMEOUT_S)
        end.connect(address.removeprefix("ipc://") if local else (host, int(port)))
        end.sendall(data)


class Strangers:
    """Connections to a service that say anything; half of them never listen.

    Args:
        addresses: of the service; the first is local.
        seed: of what they say.
    """

    def __init__(self, addresses: Sequence[str], seed: int) -> None:
        self._rng = random.Random(seed)
        self._addresses = addresses
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._leases: list[socket.socket] = []

    def pester(self, count: int, connections: int = 12) -> None:
        """Say so many messages."""
        lease, token = lease_of(self._addresses[0])
        self._leases.append(lease)
        ends = [self._end(number) for number in range(connections)]
        for number, data in enumerate(itertools.islice(random_messages(self._rng, token), count)):
            at = number % connections
            if number % 997 == 0:
                ends[at].close(0)
                ends[at] = self._end(at)
                throw_at(self._rng.choice(self._addresses), self._rng.randbytes(200))
            frames = [data] if self._rng.random() < 0.98 else [data] * self._rng.randrange(2, 6)
            ends[at].send_multipart(frames)
            while at % 2 and int(ends[at].get(zmq.EVENTS)) & zmq.POLLIN:
                ends[at].recv_multipart()
        # What was sent last is heard before this: an answer comes for it.
        for at, end in enumerate(ends):
            if at % 2:
                end.send(encode(Operate(0, "", "status", "")))
                assert end.poll(int(SEND_TIMEOUT_S * 1000)), "the service answers nobody"
            end.close(0)

    def _end(self, number: int) -> zmq.Socket[bytes]:
        end = self._context.socket(zmq.DEALER)
        end.setsockopt(zmq.SNDTIMEO, int(SEND_TIMEOUT_S * 1000))
        end.connect(self._addresses[number // 2 % len(self._addresses)])
        return end

    def close(self) -> None:
        """Hang up."""
        self._context.destroy(0)
        for lease in self._leases:
            lease.close()


def undisturbed(
    service: ServiceProcess, addresses: Sequence[str], rows: Sequence[str], seed: int, count: int
) -> float:
    """Pester a service while one consumer takes rows, which must be `rows`, again and again.

    Returns:
        By how much its memory grew, MiB.
    """
    strangers = Strangers(addresses, seed)
    failed: list[BaseException] = []

    def pester() -> None:
        try:
            # Python, ZeroMQ and the engines have taken what they need after the first of them.
            strangers.pester(count)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pester)
    with connect(addresses[0], "train") as loader:
        got = row_digests(loader.next_batch(60))
        before = psutil.Process(service.process.pid).memory_info().rss
        thread.start()
        while thread.is_alive() and len(got) + BATCH_ROWS <= len(rows):
            got += row_digests(loader.next_batch(60))
            # It should go on for as long as the strangers do.
            time.sleep(0.02)
        thread.join()
        got += row_digests(loader.next_batch(60)) if len(got) + BATCH_ROWS <= len(rows) else []
        grown = psutil.Process(service.process.pid).memory_info().rss - before
    strangers.close()
    if failed:
        raise failed[0]
    assert got == list(rows[: len(got)]), "the consumer was disturbed"
    return float(grown) / 2**20


def sent_away(
    kind: str,
    loader: Loader,
    processes: Sequence[psutil.Process],
    reference: Loader,
    names: Sequence[str],
    count: int,
) -> None:
    """Have another user say so many messages to each socket, while one consumer takes its rows.

    Those of `reference` are the same, and nobody else reaches its sockets. Prints what came of it.
    """
    began, taken = time.monotonic(), 0
    before = size_of(processes)
    program = strangers(names, count)
    while program.poll() is None:
        right = row_digests(reference.next_batch(60))
        assert row_digests(loader.next_batch(60)) == right, "the consumer was disturbed"
        taken += len(right)
        time.sleep(0.02)
    counts = told(program)
    grown_mib = (size_of(processes) - before) / 2**20
    here = [one for name, one in counts.items() if not name.startswith("tcp://")]
    # What speaks tcp says what it is to anybody, and nothing more.
    assert all(one["answers"] == 0 for one in here), counts
    assert all(process.is_running() for process in processes), "a process has ended"
    connected = sum(one["connected"] for one in counts.values())
    print(
        f"{kind}: {len(names)} sockets, {sum(one['messages'] for one in counts.values()):,} "
        f"messages of another user, {connected:,} connections, {taken:,} rows beside them as they "
        f"should be, {grown_mib:+.1f} MiB; {time.monotonic() - began:.0f} s",
        flush=True,
    )
    if grown_mib > GROWTH_MIB:
        raise SystemExit("the processes did not stay as they were")


def other_users(folder: Path, count: int) -> None:
    """Strangers at every kind of socket, one after the other."""
    dataset, stream = small_stream(folder)
    with LightDL(dataset, **stream) as loader:
        loader.next_batch(60)
        processes = psutil.Process().children(recursive=True)
        names = listening(process.pid for process in processes)
        doors = [f"{door}:{socket.SOCK_STREAM.value}" for door in doors_without_a_name()]
        with LightDL(dataset, **stream) as reference:
            reference.next_batch(60)
            sent_away("embedded", loader, processes, reference, [*names, *doors], count)
    _, secret = create_keys("server", folder)
    (folder / "clients").mkdir()
    public, _ = create_keys("me", folder)
    public.rename(folder / "clients" / public.name)
    keys = load_server_keys(secret, folder / "clients")
    path, name = f"ipc://{folder}/s", f"ipc://@chunkdl-fuzz-{secrets.token_hex(6)}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        tcp = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    settings = ServiceSettings(binds=(path, name, tcp), groups=GROUPS, max_consumers=8, keys=keys)
    spec = configure_service(dataset, arguments(**stream, batch_slots=0), settings)
    service = ServiceProcess(spec)
    try:
        with connect(path, "trials") as loader, LightDL(dataset, **stream) as reference:
            for one in (loader, reference):
                one.next_batch(60)
            server = psutil.Process(service.process.pid)
            processes = [server, *server.children(recursive=True)]
            sockets = listening(process.pid for process in processes)
            kinds = {
                "path of a service": [
                    one for one in sockets if str(folder) in one and ".lease" not in one
                ],
                "lease socket at a path": [
                    one for one in sockets if str(folder) in one and ".lease" in one
                ],
                "lease socket at a name": [one for one in sockets if one.startswith("@")],
            }
            named = {one for of_kind in kinds.values() for one in of_kind}
            kinds["nameless, of a service and its engines"] = [
                one for one in sockets if one not in named
            ]
            kinds["tcp with keys"] = [tcp]
            assert all(kinds.values()), kinds
            for kind, of_kind in kinds.items():
                sent_away(kind, loader, processes, reference, of_kind, count)
    finally:
        service.close()


def small_stream(folder: Path) -> tuple[Dataset, dict[str, Any]]:
    """Synthetic slides, and the arguments of a stream of them."""
    slides = [str(folder / f"slide-{number}.tif") for number in range(2)]
    records = []
    for number, path in enumerate(slides):
        write_coordinate_slide(path, 1500, 1248, slide_id=number, tile=128, levels=(1, 2), mpp=0.25)
        records.append(Record("/", path[1:], {"tissue_mask": ragged_mask(number)}))
    dataset = Dataset("fuzz", [Patient(n, {"a": record}) for n, record in enumerate(records)])
    stream: dict[str, Any] = {
        "batch_size": BATCH_ROWS,
        "smallchunk_size": 64,
        "bigchunk_size": 512,
        "num_bigchunks": 6,
        "smallchunks_per_bigchunk": CALLS,
        "tissue_threshold": 0.5,
        "num_loaders": 2,
        "num_collectors": 1,
        "seed": 3,
    }
    return dataset, stream


@contextmanager
def running_service(folder: Path) -> Iterator[tuple[ServiceProcess, tuple[str, str], list[str]]]:
    """A service of synthetic slides, its addresses, and the first rows of its stream."""
    dataset, stream = small_stream(folder)
    with LightDL(dataset, **stream) as loader:
        rows = [row for _ in range(400) for row in row_digests(loader.next_batch(60))]
    with socket.create_server(("127.0.0.1", 0)) as free:
        addresses = f"ipc://{folder}/s", f"tcp://127.0.0.1:{free.getsockname()[1]}"
    settings = ServiceSettings(binds=addresses, groups=GROUPS, max_consumers=8, insecure=True)
    spec = configure_service(dataset, arguments(**stream, batch_slots=0), settings)
    service = ServiceProcess(spec)
    try:
        yield service, addresses, rows
    finally:
        # It would wait for strangers that have joined and say nothing any more.
        service.process.kill()
        service.close()


def main(given: Sequence[str] | None = None) -> None:
    """Fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--strangers", action="store_true", help="only as another user")
    options = parser.parse_args(given)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz")))
        if not options.strangers:
            own_user(folder, options.seed, options.messages)
        if os.getuid() == 0:
            others = folder / "others"
            others.mkdir()
            other_users(others, options.messages)


def own_user(folder: Path, seed: int, count: int) -> None:
    """The codec, the desk, and a running service, by who may connect."""
    began = time.monotonic()
    refused = fuzz_codec(seed, count)
    longest_s = fuzz_desk(seed, count // 10)
    with running_service(folder) as (service, addresses, rows):
        grown_mib = undisturbed(service, addresses, rows, seed, count)
        alive = service.process.poll() is None
    print(
        f"codec: {count:,} messages, {refused:,} refused; desk: {count // 10:,}, each within "
        f"{longest_s:.2f} s; service: {count:,}, {'alive' if alive else 'dead'}, "
        f"{grown_mib:+.1f} MiB; {time.monotonic() - began:.0f} s"
    )
    if not alive or grown_mib > GROWTH_MIB:
        raise SystemExit("the service did not stay as it was")


if __name__ == "__main__":
    main()
