"""Another user who takes the names of a service that is gone; for `test_squatters`.

Run with the name of an abstract address. Answers on its lease socket as a service would, and passes
a socket of its own. Prints "ready", then, when its input ends, how many connections came and how
many bytes were said to it.
"""

from __future__ import annotations

import os
import select
import socket
import sys

from chunkdl.transport.channel import send
from chunkdl.transport.protocol.codec import encode
from chunkdl.transport.protocol.service_messages import LeaseOpened
from tests.service.stranger_program import NOBODY


def main() -> None:
    """Become another user and lie in wait."""
    name = sys.argv[1]
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    listeners = []
    for kind, suffix in ((socket.SOCK_STREAM, ""), (socket.SOCK_SEQPACKET, ".lease")):
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(f"\0{name}{suffix}")
        listener.listen(100)
        listeners.append(listener)
    ends: list[socket.socket] = []
    came = said = 0
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin, *listeners, *ends], [], [])
        if sys.stdin in ready:
            print(came, said, flush=True)
            return
        for source in [one for one in (*listeners, *ends) if one in ready]:
            if source in listeners:
                end, _ = source.accept()
                ends.append(end)
                came += 1
                if source is listeners[1]:
                    send(end, encode(LeaseOpened("t" * 32)), [listeners[0].fileno()])
                continue
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            said += len(data)
            if not data:
                ends.remove(source)


if __name__ == "__main__":
    main()
