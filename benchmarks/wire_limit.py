"""What ZeroMQ alone moves: ``python -m benchmarks.wire_limit --seconds 5``.

A ROUTER sends messages of the size of a batch, straight out of its memory, as far as the credit of
a DEALER goes, which receives them into memory that is there; nobody makes or looks at the bytes.
Both are processes of their own on loopback TCP. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import zmq

CREDIT = 4
WARM_UP_S = 1.0
PATIENCE_MS = 20_000


def send(port: int, size: int, curve: tuple[bytes, bytes] | None) -> None:
    """Send batches for as long as somebody asks for them."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        if curve is not None:
            router.curve_server = True
            router.curve_publickey, router.curve_secretkey = curve
        router.bind(f"tcp://127.0.0.1:{port}")
        slots = [np.ones(size, dtype=np.uint8) for _ in range(CREDIT)]
        number = 0
        while True:
            identity, _ = router.recv_multipart()
            router.send_multipart([identity, b"header", slots[number % CREDIT].data], copy=False)
            number += 1


def receive(port: int, size: int, seconds: float, server: bytes | None) -> int:
    """Receive batches; how many in so many seconds."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        if server is not None:
            dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
            dealer.curve_serverkey = server
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        memory = np.empty(size, dtype=np.uint8)
        for _ in range(CREDIT):
            dealer.send(b"more")
        batches = 0
        begin = time.perf_counter() + WARM_UP_S
        while (now := time.perf_counter()) < begin + seconds:
            dealer.recv()
            dealer.recv_into(memory.data)
            dealer.send(b"more")
            batches += now >= begin
        return batches


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire_limit")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--patch", type=int, default=224)
    parser.add_argument("--port", type=int, default=5589)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--send", action="store_true", help="be the sender")
    parser.add_argument("--keys", type=bytes.fromhex, default=b"", help="of the sender")
    options = parser.parse_args()
    size = options.batch * options.patch**2 * 3
    if options.send:
        keys = options.keys
        send(options.port, size, (keys[:40], keys[40:]) if keys else None)
        return
    public, secret = zmq.curve_keypair()
    given = (public + secret).hex() if options.curve else ""
    # The keys are made for this run; nothing that matters is in the process list.
    command = [sys.executable, "-m", "benchmarks.wire_limit", "--seconds", "0", "--send"]
    command += ["--batch", str(options.batch), "--patch", str(options.patch)]
    command += ["--port", str(options.port), f"--keys={given}"]
    with subprocess.Popen(command) as sender:
        server = public if options.curve else None
        try:
            batches = receive(options.port, size, options.seconds, server)
        finally:
            sender.kill()
    figures = {"patches": batches * options.batch, "seconds": options.seconds}
    print(json.dumps({**figures, "decoded_px": 0, "distinct": 0}))


if __name__ == "__main__":
    main()
