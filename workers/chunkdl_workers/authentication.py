"""Which clients get in by tcp, as ZeroMQ asks it (ZAP, RFC 27), and who they are after that.

A thread answers: handshakes go on while the server starts an engine. libzmq puts the key that a
client has proved beside every message of its connection; nothing that a client says changes it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable

import zmq
from zmq.utils import z85

from chunkdl.service.decisions.drops import Drops
from chunkdl.service.decisions.visitors import SOMEBODY, Visitor
from chunkdl.service.keys import AllowedClient
from chunkdl.system.steady_log import steady_logger
from chunkdl_workers.listening import bind_questions

END_S = 5.0
"""For the thread to end."""
KEY, ADDRESS = "User-Id", "Peer-Address"
"""What libzmq knows of a connection: the answer to its question, and where the client is."""

log = steady_logger("chunkdl.service")


class Gatekeeper:
    """Answers for one context.

    After the start `_questions` and `_refused` belong to the thread that answers, which closes the
    socket; `_clients` is never changed, and both threads read it. The server's thread has the rest.

    Args:
        context: whose sockets ask.
        clients: that are let in.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], clients: Iterable[AllowedClient]
    ) -> None:
        self._clients = {client.public: client for client in clients}
        self._refused = Drops()
        self._questions = bind_questions(context)
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._answer, name="chunkdl-keys", daemon=True)
        self._thread.start()

    def visitor(self, frame: zmq.Frame) -> Visitor:
        """Who has sent a frame, by the key that libzmq has seen proved."""
        key = known_of(frame, KEY)
        client = self._clients.get(key)
        if client is None:
            return SOMEBODY
        role = "operator" if client.is_operator else "consumer"
        name = f"the {role}'s key {client.file}, at {known_of(frame, ADDRESS)}"
        return Visitor(name, client.is_operator, key)

    def stop(self) -> None:
        """Answer no more; who asks now is not let in."""
        os.eventfd_write(self._over, 1)
        self._thread.join(END_S)
        if not self._thread.is_alive():
            os.close(self._over)

    def _answer(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._over, zmq.POLLIN)
        with contextlib.closing(self._questions), contextlib.suppress(zmq.ContextTerminated):
            while True:
                ready = dict(poller.poll())
                if self._over in ready:
                    return
                self._questions.send_multipart(self._reply(self._questions.recv_multipart()))

    def _reply(self, question: list[bytes]) -> list[bytes]:
        """Version, number, status, text, user and metadata."""
        version, number, _, address, _, mechanism, *shown = question
        key = z85.encode(shown[0]).decode() if mechanism == b"CURVE" and shown else ""
        if key in self._clients:
            return [version, number, b"200", b"OK", key.encode(), b""]
        where = address.decode(errors="replace")
        if line := self._refused.count(f"a client at {where}: its key is in no file"):
            log.warning("%s", line)
        return [version, number, b"400", b"its key is not allowed", b"", b""]


def known_of(frame: zmq.Frame, what: str) -> str:
    """What libzmq knows of the connection that a frame came by; empty: nothing."""
    try:
        return str(frame.get(what))
    except zmq.ZMQError:
        return ""
