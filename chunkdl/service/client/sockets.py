"""The sockets between a consumer and a service: messages, memory of a local one, bytes of another.

To a service on this machine ("ipc://…"): the lease socket, of which the kernel says whose it is and
over which memory is passed and either side hears of the other's death, and a ZeroMQ socket for
messages, whose place is passed over it too. To any other ("tcp://…"): a
ZeroMQ socket for messages and one for bytes, so that signs of life need not queue behind them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import zmq
from zmq.utils.monitor import parse_monitor_message

from chunkdl.errors import ConfigError, ProtocolError, ServiceDied, ServiceRefused
from chunkdl.service.addresses import check_connecting, lease_address
from chunkdl.service.keys import ClientKeys
from chunkdl.system.awake_clock import PIECE_S, AwakeClock, deadline_of
from chunkdl.system.wakeups import readable
from chunkdl.transport.channel import first_message, private_address, receive
from chunkdl.transport.contexts import end_context
from chunkdl.transport.memory.arena import Arena
from chunkdl.transport.memory.layouts import Array, Bytes
from chunkdl.transport.protocol.codec import (
    MAX_MESSAGE_BYTES,
    decode_frames,
    decode_service,
    encode,
    encode_consumer,
)
from chunkdl.transport.protocol.engine_messages import Message, Refuse
from chunkdl.transport.protocol.service_messages import (
    ArenaPassed,
    Attach,
    Delivered,
    LeaseOpened,
    ServiceMessage,
)

HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 5_000, 30_000
"""Of ZeroMQ itself."""
ARENA_TIMEOUT_S = 10.0
"""For memory that was announced to be passed."""
KEPT_ARENAS = 2
"""Of one service; batches of older ones keep their memory by themselves."""
MOST_BROKEN = 3
"""Handshakes in a row that break off before the first one worked."""
READABLE = int(zmq.POLLIN)
"""A number: the operators of an enumeration take longer than to ask ZeroMQ."""
MOST_ARENA_SLOTS, MOST_ARENA_BYTES = 2**16, 2**42
"""Of memory that a service may pass: more is no service of ours, whatever version."""


class Wire:
    """One connection to a service; used by one thread.

    Args:
        address: of the service.
        keys: for a protected one.
        wake: descriptor that ends a wait.
        clock: by which it notes when something was heard and said.
        lease: connected lease socket of a service on this machine, else None.
        place: descriptor (O_PATH) of its ZeroMQ socket, which came over that, else None.
    """

    def __init__(
        self,
        address: str,
        keys: ClientKeys | None,
        wake: int,
        clock: AwakeClock,
        lease: socket.socket | None = None,
        place: int | None = None,
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._lease, self._place = lease, place
        self._keys = keys
        self._address = address
        self._arenas: dict[int, Arena] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._monitors: list[zmq.Socket[bytes]] = []
        self._poller = zmq.Poller()
        self._data: zmq.Socket[bytes] | None = None
        self._broken = 0
        self.token = ""
        self.is_over = False
        """The other end is gone; or it wants another connection."""
        self.joined = False
        """The session was opened over it."""
        self.heard_s = self.said_s = 0.0
        """When something was heard and said last, seconds."""
        self.trouble = ""
        """Why the connection does not come about, where that is known."""
        self._control = self._connected(MAX_MESSAGE_BYTES)
        # What cannot be sent now is not sent later to another service at the same address.
        self._control.setsockopt(zmq.IMMEDIATE, 1)
        # Not by its name, which anybody may have by now, but by what the service itself has given.
        self._control.connect(address if place is None else private_address(place))
        self._poller.register(self._control, zmq.POLLIN | zmq.POLLOUT)
        self._poller.register(wake, zmq.POLLIN)
        if lease is not None:
            self._poller.register(lease.fileno(), zmq.POLLIN)

    @classmethod
    def open(
        cls, address: str, keys: ClientKeys | None, wake: int, clock: AwakeClock
    ) -> Self | None:
        """A connection; None: there is no service on this machine at that address.

        Raises:
            ConfigError: it is not an address, or others could have put their socket there.
            ServiceRefused: the lease socket belongs to somebody else.
        """
        if address.startswith("tcp://"):
            return cls(address, keys, wake, clock)
        if not address.startswith("ipc://"):
            raise ConfigError(f"{address!r} is not an address; give ipc:///path or tcp://host:port")
        expected = check_connecting(address)
        path = lease_address(address)
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # It takes longer where many wait to be let in; then it is tried again.
        lease.settimeout(PIECE_S)
        try:
            lease.connect(path)
            first = first_message(lease, clock, ARENA_TIMEOUT_S, descriptors=1)
            lease.settimeout(ARENA_TIMEOUT_S)
        except PermissionError as error:
            lease.close()
            raise ServiceRefused(f"the service at {address} belongs to another user") from error
        except OSError:
            lease.close()
            return None
        if first is None:
            lease.close()
            return None
        data, places = first
        try:
            credentials = lease.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            owner = struct.unpack("3i", credentials)[1]
            if owner != expected and (owner or not data):
                raise ServiceRefused(f"the service at {address} belongs to another user")
            if not data:
                # It ends just now, or has as many lease connections as it takes.
                lease.close()
                return None
            opened = decode_service(data)
            if not isinstance(opened, LeaseOpened):
                raise ProtocolError(f"the lease socket began with {type(opened).__name__}")
            if not places:
                raise ProtocolError(
                    "the lease socket passed no socket for messages; has this process descriptors "
                    "left (ulimit -n)?"
                )
            os.set_inheritable(places[0], False)
            wire = cls(address, keys, wake, clock, lease, places[0])
        except BaseException:
            lease.close()
            for place in places:
                os.close(place)
            raise
        wire.token = opened.token
        return wire

    @property
    def is_local(self) -> bool:
        """Whether batches come as references."""
        return self._lease is not None

    def _connected(self, most_bytes: int) -> zmq.Socket[bytes]:
        end = self._context.socket(zmq.DEALER)
        end.setsockopt(zmq.LINGER, 500)
        end.setsockopt(zmq.MAXMSGSIZE, most_bytes)
        end.setsockopt(zmq.RECONNECT_IVL, 100)
        end.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
        end.setsockopt(zmq.IPV6, int(not self._address.startswith("ipc")))
        if self._keys is not None:
            end.curve_publickey = self._keys.public.encode()
            end.curve_secretkey = self._keys.secret.encode()
            end.curve_serverkey = self._keys.server.encode()
        if not self.is_local:
            # A network that is gone without a word, on a connection that is only listened to.
            end.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            end.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
            # The service does the same to a consumer that is frozen.
            end.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
            self._monitors.append(end.get_monitor_socket())
            self._poller.register(self._monitors[-1], zmq.POLLIN)
        return end

    # ------------------------------------------------------------------- waiting

    def wait(self, timeout_s: float, *, with_data: bool) -> None:
        """Until there may be something to hear, or to say, or the connection came about."""
        if self._data is not None and with_data and self._data not in self._poller:
            self._poller.register(self._data, zmq.POLLIN)
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._lease is not None and self._lease.fileno() in ready:
            self._from_lease(self._lease)
        for monitor in self._monitors:
            if monitor in ready:
                self._watch(monitor)

    def _from_lease(self, lease: socket.socket) -> None:
        try:
            data, descriptors = receive(lease, descriptors=1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.is_over = True
            return
        try:
            message = decode_service(data)
            if not isinstance(message, ArenaPassed) or len(descriptors) != 1:
                raise ProtocolError(f"the lease socket said {type(message).__name__}")
            self._map(message, descriptors[0])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _map(self, message: ArenaPassed, descriptor: int) -> None:
        size = message.slots * message.slot_bytes
        sound = 0 < message.slots <= MOST_ARENA_SLOTS and 0 < size <= MOST_ARENA_BYTES
        # A file that is shorter than it is said to be would be a SIGBUS in the middle of a batch.
        if not sound or os.fstat(descriptor).st_size < size:
            raise ProtocolError("memory was passed that is not as large as it is said to be")
        try:
            # What the training writes into a batch is its own, and reaches nobody after it.
            arena = Arena(descriptor, message.slots, message.slot_bytes, private=True)
        except OSError as error:
            raise ProtocolError(f"memory was passed that cannot be used: {error}") from error
        self._arenas[message.engine] = arena
        for engine in sorted(self._arenas)[:-KEPT_ARENAS]:
            self._arenas.pop(engine).close()

    def _watch(self, monitor: zmq.Socket[bytes]) -> None:
        """What became of connections; ZeroMQ alone would try for ever without a word."""
        while int(monitor.get(zmq.EVENTS)) & READABLE:
            event: Any = parse_monitor_message(monitor.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._broken, self.trouble = 0, ""
            elif event == zmq.EVENT_DISCONNECTED and self.said_s:
                # What was under way is lost, and only who joins again is sent it again.
                self.is_over = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise ServiceRefused(
                    f"the service at {self._address} does not accept the key of this client; have "
                    "its public key put into the folder of allowed clients, and the service begun "
                    "anew"
                )
            elif event in (
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
                zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            ):
                # After an error of the protocol ZeroMQ does not try again.
                final = event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                self._broken += MOST_BROKEN if final else 1
                self.is_over |= final
                self.trouble = "the handshake breaks off"
                if self._broken >= MOST_BROKEN and not self.joined:
                    raise ServiceRefused(
                        f"the service at {self._address} does not shake hands: is it protected, "
                        "and is this its public key?"
                        if self._keys is not None
                        else f"the service at {self._address} does not shake hands: it is "
                        "protected, give keys; or it is not a chunkdl service"
                    )

    # ------------------------------------------------------------------- messages

    def messages(self) -> Iterator[ServiceMessage]:
        """What the service has said."""
        while not self.is_over and int(self._control.get(zmq.EVENTS)) & READABLE:
            frames = self._control.recv_multipart()
            self.heard_s = self._clock.now()
            yield decode_frames(frames)

    def say(self, message: Message) -> bool:
        """Send a message; False: nobody is connected, and it is lost."""
        try:
            self._control.send_multipart(encode_consumer(message), zmq.DONTWAIT)
        except zmq.Again:
            return False
        if not self.said_s:
            self._poller.modify(self._control, zmq.POLLIN)
        self.said_s = self._clock.now()
        return True

    # ---------------------------------------------------------------------- bytes

    def attach(self, attach: Attach, most_bytes: int) -> None:
        """Open the connection for bytes."""
        if self._data is not None:
            raise ProtocolError("the service has let it in twice")
        self._data = self._connected(most_bytes)
        self._data.connect(self._address)
        # It is the first thing on that connection, and waits for it to come about.
        self._data.send(encode(attach))

    def header(self) -> Delivered | None:
        """The next batch on the connection for bytes; its frames are to be read then."""
        data = self._data
        if data is None or not int(data.get(zmq.EVENTS)) & READABLE:
            return None
        message = decode_frames([data.recv()])
        self.heard_s = self._clock.now()
        if isinstance(message, Refuse):
            raise ServiceRefused(f"{self._address}: {message.reason}")
        if not isinstance(message, Delivered):
            raise ProtocolError(f"{type(message).__name__} came among the batches")
        return message

    def into(self, rows: Array) -> None:
        """The next frame, into memory of exactly its size.

        Raises:
            ProtocolError: it has another size.
        """
        data = self._data
        if data is None or not data.getsockopt(zmq.RCVMORE):
            raise ProtocolError("a batch came without its bytes")
        memory = rows.reshape(-1).view(np.uint8)
        size = data.recv_into(memory.data, flags=zmq.DONTWAIT)
        if size != memory.nbytes:
            raise ProtocolError(f"{size} bytes came for {memory.nbytes}")

    def skip(self) -> None:
        """Drop the frames of a batch."""
        while self._data is not None and self._data.getsockopt(zmq.RCVMORE):
            self._data.recv_into(bytearray(1))

    def end_of_frames(self) -> None:
        """All frames of a batch were read."""
        if self._data is not None and self._data.getsockopt(zmq.RCVMORE):
            raise ProtocolError("a batch came with more bytes than rows")

    def slots(self, message: Delivered, size_bytes: int) -> tuple[Bytes, ...]:
        """The memory of each piece of a batch.

        Args:
            message: announces the batch.
            size_bytes: of a batch of the engine.

        Raises:
            ProtocolError: there is no such memory.
            ServiceDied: it does not come.
        """
        arena = self._arena(message.engine)
        numbers = [piece.slot for piece in message.pieces]
        if size_bytes > arena.slot_bytes or not all(0 <= n < arena.slots for n in numbers):
            raise ProtocolError("a batch is said to lie where there is no memory")
        return tuple(map(arena.slot, numbers))

    def forget(self, engine: int, slot: int) -> None:
        """Nothing that lies in a slot is in use; what was written there here is dropped."""
        if engine in self._arenas:
            self._arenas[engine].forget(slot)

    def _arena(self, engine: int) -> Arena:
        """The memory of an engine, which is passed before the first batch in it is announced."""
        left = deadline_of(ARENA_TIMEOUT_S)
        while engine not in self._arenas:
            piece_s = left(PIECE_S)
            if self._lease is None or self.is_over or not piece_s:
                raise ServiceDied("the service has not passed the memory that batches lie in")
            if self._lease.fileno() in readable((self._lease.fileno(),), piece_s):
                self._from_lease(self._lease)
        return self._arenas[engine]

    def close(self) -> None:
        """Close the sockets; memory that is in use stays until it is not."""
        for arena in self._arenas.values():
            arena.close()
        self._arenas.clear()
        for end in (self._control, self._data):
            if end is not None:
                if not self.is_local:
                    end.disable_monitor()
                end.close()
        for monitor in self._monitors:
            monitor.close(0)
        end_context(self._context)
        if self._place is not None:
            os.close(self._place)
            self._place = None
        if self._lease is not None:
            # A fork of this process may have it too.
            with contextlib.suppress(OSError):
                self._lease.shutdown(socket.SHUT_RDWR)
            self._lease.close()
            self._lease = None
