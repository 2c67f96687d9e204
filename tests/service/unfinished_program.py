"""Opens tcp connections and never says anything; for `test_descriptors`.

Run with "HOST:PORT" and how many. Prints how many came about, once there are so many or no more are
let in, and ends with its input.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys

AT_A_TIME, PATIENCE_S = 200, 4.0


def main() -> None:
    """Open them, and keep them."""
    host, _, port = sys.argv[1].rpartition(":")
    count = int(sys.argv[2])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept: list[socket.socket] = []
    trying: dict[int, socket.socket] = {}
    poll = select.poll()
    while len(kept) < count:
        while len(trying) < AT_A_TIME:
            end = socket.socket()
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                end.connect((host, int(port)))
            trying[end.fileno()] = end
            poll.register(end, select.POLLOUT)
        came = poll.poll(PATIENCE_S * 1000)
        if not came:
            break
        for descriptor, _ in came:
            poll.unregister(descriptor)
            kept.append(trying.pop(descriptor))
    print(len(kept), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
