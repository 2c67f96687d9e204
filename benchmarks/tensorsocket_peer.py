"""TensorSocket with ready batches: ``python -m benchmarks.tensorsocket_peer --consumers 2``.

Its producer runs over a list of batches that lie in memory; its consumers take them as fast as they
come, and stop when nothing has come for a while, since the end of an epoch is not told. Prints one
JSON line: the batches that the slowest consumer got, of how many, and the time per batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import torch

PORTS = (5571, 5572, 5573, 5574)
QUIET_S = 15.0
"""Nothing comes for so long: it is over."""
START_S = 60.0
SETTLE_S = 3.0


class Ready:
    """A loader whose batches are there already.

    Args:
        batches: of an epoch.
        size: rows of a batch, and side of a row in pixels.
    """

    def __init__(self, batches: int, size: tuple[int, int]) -> None:
        rows, side = size
        self._batch = torch.ones((rows, 3, side, side), dtype=torch.uint8)
        self._batches = batches

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        for _ in range(self._batches):
            yield (self._batch,)


def produce(options: argparse.Namespace) -> None:
    """One epoch, once all consumers are there."""
    from tensorsocket import TensorProducer

    ready = Ready(options.batches, (options.batch, options.patch))
    producer = TensorProducer(ready, PORTS[0], PORTS[1], heart_ports=PORTS[2:])
    deadline = time.monotonic() + START_S
    while len(producer.hb.consumers) < options.consumers:
        assert time.monotonic() < deadline, "not all consumers came"
        time.sleep(0.05)
    # An acknowledgement that comes before its connection is lost, and waited for for ten seconds.
    time.sleep(SETTLE_S)
    for _ in producer:
        pass


def consume(options: argparse.Namespace) -> None:
    """Count batches and the time that they took."""
    from tensorsocket import TensorConsumer

    consumer = TensorConsumer(PORTS[0], PORTS[1], heart_ports=PORTS[2:], batch_size=options.batch)
    times: list[float] = []
    taken = threading.Event()

    def take() -> None:
        for _ in consumer:
            times.append(time.perf_counter())
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    taken.wait(START_S)
    while times and time.perf_counter() - times[-1] < QUIET_S and len(times) < options.batches:
        time.sleep(0.05)
    took = times[-1] - times[0] if len(times) > 1 else 0.0
    print(json.dumps({"batches": len(times), "seconds": took}), flush=True)
    # Its threads do not end by themselves.
    os._exit(0)


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tensorsocket_peer")
    parser.add_argument("--consumers", type=int, default=1)
    parser.add_argument("--batches", type=int, default=640)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--patch", type=int, default=224)
    parser.add_argument("--seconds", type=float, help="not used: an epoch is run")
    parser.add_argument("--be", choices=("producer", "consumer"))
    options = parser.parse_args()
    if options.be:
        (produce if options.be == "producer" else consume)(options)
        return
    command = [sys.executable, "-m", "benchmarks.tensorsocket_peer"]
    for name in ("consumers", "batches", "batch", "patch"):
        command += [f"--{name}", str(getattr(options, name))]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*command, "--be", "producer"], stdout=quiet, stderr=quiet) as producer:
        consumers = [
            subprocess.Popen([*command, "--be", "consumer"], stdout=subprocess.PIPE, text=True)
            for _ in range(options.consumers)
        ]
        try:
            outputs = [one.communicate(timeout=300)[0] for one in consumers]
        finally:
            producer.kill()
    # One of four was seen to end without a word.
    found = [json.loads(output or '{"batches": 0, "seconds": 0.0}') for output in outputs]
    slowest = max(found, key=lambda one: one["seconds"] / max(1, one["batches"]))
    seconds = max(slowest["seconds"], 1e-9)
    figures = {"patches": slowest["batches"] * options.batch, "seconds": seconds}
    least = min(one["batches"] for one in found)
    print(json.dumps({**figures, "decoded_px": 0, "distinct": 0, "delivered": least}))


if __name__ == "__main__":
    main()
