"""How a ZeroMQ context is ended, which may never come to its end.

libzmq was seen to wait for ever for a context whose last peer went at that moment. What it waits
for is nothing of ours any more: its sockets are closed.
"""

from __future__ import annotations

import contextlib
import threading

import zmq

TERM_TIMEOUT_S = 5.0
"""For what lingers to be sent, and more."""


def end_context(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """End a context whose sockets are closed; one that does not end is left to its thread."""
    thread = threading.Thread(target=context.term, name="chunkdl-context", daemon=True)
    # Where the interpreter ends, and lets no thread begin, the context goes with the process.
    with contextlib.suppress(RuntimeError):
        thread.start()
        thread.join(TERM_TIMEOUT_S)
