"""The sockets of a service: ZeroMQ for messages and bytes, a lease socket for local consumers.

A local consumer proves over the lease socket which user it is, gets memory passed there, and the
kernel reports its death there as an end of file.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from chunkdl.errors import AddressInUse, ConfigError, ProtocolError
from chunkdl.service.addresses import lease_address
from chunkdl.service.decisions.actions import Peer
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor
from chunkdl.service.keys import Keys
from chunkdl.transport.channel import send
from chunkdl.transport.contexts import end_context
from chunkdl.transport.protocol.codec import (
    MAX_MESSAGE_BYTES,
    decode_consumer,
    encode,
    encode_frames,
)
from chunkdl.transport.protocol.engine_messages import Message, Refuse
from chunkdl.transport.protocol.service_messages import ServiceMessage
from chunkdl_workers.authentication import ADDRESS, Gatekeeper, known_of
from chunkdl_workers.listening import (
    accept_own,
    bind_packets,
    bind_private,
    bind_router,
    process_at,
)
from chunkdl_workers.socket_files import (
    SocketFiles,
    check_file,
    is_abstract,
    locked,
    remove_dead,
)
from chunkdl_workers.tcp_gate import TcpGate

HANDSHAKE_MS = 10_000
"""For a connection by tcp to show its key, and for any to say what it is; else it is closed."""
GONE_MS = 30_000
"""A connection whose other end is frozen, or gone without a word, is closed after so long, and what
it holds is free. The heartbeats are the consumers': libzmq 4.3.5 aborts the process where its own
is due on a connection that is lost while its messages wait to be read."""
KEEPALIVE_S = (10, 5, 4)
"""Of TCP: idle, interval, and how many probes."""
WAITING_MESSAGES = 64
"""Of one peer, that were not looked at yet."""
SENT_MESSAGES = 2048
"""To one peer, that it has not read; more than any credit and all answers to it, so only a
stranger who does not read loses any."""
TURN_MESSAGES = 256
"""That are looked at before it is the turn of anything else."""
MOST_LEASES = 512
"""Lease connections at a time."""
LINGER_MS = 2_000
AWAY = (zmq.EHOSTUNREACH, zmq.EAGAIN)
"""Of a peer that is gone, or does not read."""


class Doors:
    """All bound sockets of a service; used by the server's thread.

    Beside it libzmq has threads of its own, which ask the gatekeeper's, and the gate has one.

    Args:
        binds: addresses.
        keys: for the tcp addresses, or None.

    Raises:
        AddressInUse, ConfigError: an address cannot be bound.
    """

    def __init__(self, binds: Sequence[str], keys: Keys | None) -> None:
        self._open: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Authentication is for every socket of a context; who comes by ipc shows its user instead.
        self._secure: zmq.Context[zmq.Socket[bytes]] | None = None
        self._gatekeeper: Gatekeeper | None = None
        self.routers: list[zmq.Socket[bytes]] = []
        self.listeners: dict[int, socket.socket] = {}
        self.leases: dict[int, socket.socket] = {}
        """Connections to lease sockets, by descriptor."""
        self.holders: dict[int, int] = {}
        """Lease connections by a descriptor of the process that has each, readable at its end."""
        self.places: dict[int, int] = {}
        """Descriptors (O_PATH) of the ZeroMQ sockets of this machine, by the lease socket beside
        each. Who connects by that reaches this service, whoever has the name meanwhile."""
        self._files = SocketFiles()
        self._gate: TcpGate | None = None
        self._descriptors: list[int] = []
        self.addresses: list[str] = []
        """Where the routers are, with the ports that were given."""
        try:
            for address in binds:
                self._bind(address, keys)
            ports = [int(at.rpartition(":")[2]) for at in self.addresses if at.startswith("tcp:")]
            self._gate = TcpGate(ports) if ports else None
        except BaseException:
            self.close()
            raise

    def _bind(self, address: str, keys: Keys | None) -> None:
        path = address.removeprefix("ipc://")
        if path == address:
            self._bind_tcp(address, keys)
        elif is_abstract(path):
            self._bind_local(address)
        else:
            with locked(os.path.dirname(path)):
                check_file(path)
                self._bind_local(address)

    def _bind_local(self, address: str) -> None:
        """Make the two sockets of an ipc address; that with a file in a locked folder."""
        path, lease = address.removeprefix("ipc://"), lease_address(address)
        router = self._router(self._open)
        # A folder that is made for a socket without a name has to be one that we may enter.
        before = os.umask(0o077 if is_abstract(path) else 0o177)
        try:
            listener = self._listen(lease)
            self._files.note(lease)
            if is_abstract(path):
                # By its name anybody could be found there once this service is gone.
                place = bind_private(router)
            else:
                bind_router(router, address)
                place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                self._files.note(path)
        except (OSError, zmq.ZMQError) as error:
            raise ConfigError(f"cannot bind {address}: {error}") from error
        finally:
            os.umask(before)
        self.places[listener] = place
        self._bound(router, address)

    def _bind_tcp(self, address: str, keys: Keys | None) -> None:
        router = self._router(self._open if keys is None else self._secured(keys))
        router.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            # Without an answer to its question libzmq lets nobody in.
            router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            router.setsockopt_string(zmq.ZAP_DOMAIN, "chunkdl")
            router.curve_server = True
            router.curve_publickey, router.curve_secretkey = (
                keys.public.encode(),
                keys.secret.encode(),
            )
        try:
            bind_router(router, address)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                raise AddressInUse(f"{address} is in use by another program") from error
            raise ConfigError(f"cannot bind {address}: {error}") from error
        self._bound(router, router.getsockopt_string(zmq.LAST_ENDPOINT))

    def _bound(self, router: zmq.Socket[bytes], address: str) -> None:
        self._descriptors.append(router.fileno())
        self.addresses.append(address)

    def _router(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        router = context.socket(zmq.ROUTER)
        self.routers.append(router)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES),
            (zmq.SNDHWM, SENT_MESSAGES),
            (zmq.RCVHWM, WAITING_MESSAGES),
            (zmq.LINGER, LINGER_MS),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
            (zmq.TCP_MAXRT, GONE_MS),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_S[0]),
            (zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_S[1]),
            (zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_S[2]),
        ):
            router.setsockopt(option, value)
        return router

    def _secured(self, keys: Keys) -> zmq.Context[zmq.Socket[bytes]]:
        if self._secure is None:
            self._secure = zmq.Context()
            self._gatekeeper = Gatekeeper(self._secure, keys.allowed)
        return self._secure

    def _listen(self, path: str) -> int:
        try:
            listener = bind_packets(path)
        except OSError:
            remove_dead(path)
            listener = bind_packets(path)
        self.listeners[listener.fileno()] = listener
        return listener.fileno()

    @property
    def descriptors(self) -> list[int]:
        """Of the ZeroMQ sockets; they tell of changes only."""
        return self._descriptors

    @property
    def local(self) -> frozenset[int]:
        """Numbers of the sockets that only processes of this machine reach."""
        return frozenset(
            number for number, at in enumerate(self.addresses) if at.startswith("ipc://")
        )

    @property
    def waiting(self) -> bool:
        """Whether a message waits to be read."""
        return any(int(router.get(zmq.EVENTS)) & zmq.POLLIN for router in self.routers)

    def accept(self, listener: int) -> int | None:
        """A new lease connection of a process of this user; None: it is not taken."""
        accepted = accept_own(self.listeners[listener])
        if accepted is None:
            return None
        end, pid = accepted
        if len(self.leases) >= MOST_LEASES:
            end.close()
            return None
        end.setblocking(False)
        self.leases[end.fileno()] = end
        # A fork of it has the connection too, and may live on. One of another namespace of
        # processes has no number here; there the connection alone tells.
        with contextlib.suppress(OSError):
            self.holders[os.pidfd_open(pid)] = end.fileno()
        return end.fileno()

    def pass_on(self, lease: int, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send something over a lease connection; False: it is gone, or nobody reads there."""
        end = self.leases.get(lease)
        try:
            if end is not None:
                send(end, encode(message), descriptors)
        except OSError:
            return False
        return end is not None

    def is_over(self, lease: int) -> bool:
        """Whether the other end of a lease connection is gone; it has nothing to say there."""
        try:
            return not self.leases[lease].recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close_lease(self, lease: int) -> None:
        """End a lease connection."""
        for holder in [holder for holder, its in self.holders.items() if its == lease]:
            del self.holders[holder]
            os.close(holder)
        end = self.leases.pop(lease, None)
        if end is not None:
            end.close()

    def messages(self) -> Iterator[tuple[Peer, ServiceMessage | ProtocolError, Visitor]]:
        """What has come in and from whom, with what could not be understood; in turn by socket.

        Of a flood only a part: there are other things to do, and others to hear. Who comes by an
        ipc address shows a token, by which it is known.
        """
        for number, router in enumerate(self.routers):
            local = self.addresses[number].startswith("ipc://")
            for _ in range(TURN_MESSAGES):
                who = SOMEBODY
                try:
                    if local:
                        identity, *frames = router.recv_multipart(zmq.DONTWAIT)
                    else:
                        parts = router.recv_multipart(zmq.DONTWAIT, copy=False)
                        who = self._visitor(parts[-1])
                        identity, *frames = (part.bytes for part in parts)
                except zmq.Again:
                    break
                peer = number, identity
                if who is SOMEBODY and not local:
                    yield peer, ProtocolError("a message of somebody without a key"), who
                    continue
                try:
                    yield peer, decode_consumer(frames), who
                except ProtocolError as error:
                    yield peer, error, who

    def _visitor(self, frame: zmq.Frame) -> Visitor:
        """Who has sent a frame over tcp; without keys whoever reaches the service may steer it."""
        if self._gatekeeper is not None:
            return self._gatekeeper.visitor(frame)
        return Visitor(f"somebody at {known_of(frame, ADDRESS)}", is_operator=True)

    def visitor_at(self, lease: int) -> Visitor:
        """Who is at a lease connection; only our own user and root are there."""
        return Visitor(process_at(self.leases[lease]), is_operator=True)

    def say(self, peer: Peer, message: Message) -> bool:
        """Send a message; False: the connection is gone."""
        number, identity = peer
        try:
            self.routers[number].send_multipart([identity, *_frames(message)], zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno in AWAY:
                return False
            raise
        return True

    def send(self, peer: Peer, message: Message, slots: Sequence[Any]) -> zmq.MessageTracker | None:
        """Send a message with what lies in slots behind it; tells when that was read.

        Returns:
            The tracker, whose slots must not change before it is done; None: the peer is gone.
        """
        number, identity = peer
        try:
            return self.routers[number].send_multipart(
                [identity, b"".join(_frames(message)), *slots],
                zmq.DONTWAIT,
                copy=False,
                track=True,
            )
        except zmq.ZMQError as error:
            if error.errno in AWAY:
                return None
            raise

    def close(self) -> None:
        """Remove what lies in the file system and close everything."""
        # First, while nobody else can bind there: what is at the address later is a successor's.
        self._files.remove()
        if self._gate is not None:
            self._gate.close()
            self._gate = None
        for lease in tuple(self.leases):
            self.close_lease(lease)
        for end in self.listeners.values():
            end.close()
        self.listeners.clear()
        for place in self.places.values():
            os.close(place)
        self.places.clear()
        for router in self.routers:
            router.close()
        if self._gatekeeper is not None:
            self._gatekeeper.stop()
        for context in (self._open, self._secure):
            if context is not None:
                end_context(context)


def _frames(message: Message) -> list[bytes]:
    """A message; where it is too large, a `Refuse` that says so."""
    try:
        return encode_frames(message)
    except ProtocolError as error:
        return encode_frames(Refuse(f"the service cannot say what it should: {error}"))
