"""What sharing costs: ``python -m benchmarks.service``.

Ratios from one run, each from interleaved repetitions:

- a consumer of a service on this machine beside `LightDL`; two and four ranks together beside one;
  each of four members of a broadcast beside one member, and the processor time of the service;
- loopback TCP from a service whose batches cost little, beside bare ZeroMQ with messages of that
  size; the same encrypted (CURVE);
- processor time of server and coordinator for a batch, and how many batches of next to nothing go
  through in a second;
- time for a batch of ready pixels beside TensorSocket, for 1, 2 and 4 consumers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks.measure import Row, Table, benchmark_slides, run_interleaved, run_once

STREAM = "benchmarks.service_stream"
CHEAP = ("--reuse", "64")
"""Rows that cost little to make, so that the way to the consumer is what is measured."""


def local_rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """Consumers on this machine."""
    base = (STREAM, "--slides", *slides)
    shared = (*base, "--broadcast", "--copy", "no")
    return (
        Row("LightDL", ((*base, "--embedded"),)),
        Row("service, one rank", ((*base, "--consumers", "1"),)),
        Row("service, two ranks", ((*base, "--consumers", "2"),)),
        Row("service, four ranks", ((*base, "--consumers", "4"),)),
        Row("broadcast, one member", ((*shared, "--consumers", "1"),)),
        Row("broadcast, four members", ((*shared, "--consumers", "4"),)),
    )


def remote_rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """Consumers by TCP, and ZeroMQ alone."""
    base = (STREAM, "--slides", *slides, *CHEAP)
    return (
        Row("bare ZeroMQ", (("benchmarks.wire_limit",),)),
        Row("service by TCP", ((*base, "--tcp", "5581"),)),
        Row("bare ZeroMQ, CURVE", (("benchmarks.wire_limit", "--curve"),)),
        Row("service by TCP, CURVE", ((*base, "--tcp", "5582", "--curve"),)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args(arguments)
    slides = benchmark_slides()
    local = run_interleaved(local_rows(slides), options.repetitions, options.seconds)
    print_local(local)
    remote = run_interleaved(remote_rows(slides), options.repetitions, options.seconds)
    print_remote(remote)
    print_small(slides, options.seconds)
    print_peer(slides, options.seconds)


def print_local(table: Table) -> None:
    """Of consumers on this machine."""
    for name in table.commands:
        print(f"{name:26} {table.rate(name):8.0f} patches/s")
    one, lone = "service, one rank", "broadcast, one member"
    print(f"service / LightDL           {table.ratio(one, 'LightDL'):.2f}  (asked 0.95)")
    for many in ("service, two ranks", "service, four ranks"):
        print(f"{many} / one {table.ratio(many, one):.2f}  (asked 0.9)")
    slowest = statistics.median(
        each.extra["slowest"] / alone.rate
        for each, alone in zip(table.of("broadcast, four members"), table.of(lone), strict=True)
    )
    print(f"slowest of four members / one member {slowest:.2f}  (asked 0.9)")
    spent = statistics.median(
        _service_ms(each.extra) / _service_ms(alone.extra)
        for each, alone in zip(table.of("broadcast, four members"), table.of(lone), strict=True)
    )
    print(f"processor time for a batch, four members / one {spent:.2f}  (asked 1.15)")
    print_coordination("full batches", table.of(one)[0].extra)


def _service_ms(extra: dict[str, float]) -> float:
    return sum(extra[f"{name}_cpu_ms"] for name in ("server", "coordinator", "workers"))


def print_coordination(what: str, extra: dict[str, float]) -> None:
    """Processor time of those that only coordinate."""
    print(
        f"{what}: server {extra['server_cpu_ms']:.2f} ms and coordinator "
        f"{extra['coordinator_cpu_ms']:.2f} ms of processor time for a batch"
    )


def print_remote(table: Table) -> None:
    """Of consumers by TCP."""
    for name in table.commands:
        print(f"{name:26} {table.rate(name) * 224**2 * 3 / 2**20:8.0f} MiB/s")
    for suffix in ("", ", CURVE"):
        ratio = table.ratio(f"service by TCP{suffix}", f"bare ZeroMQ{suffix}")
        print(f"service by TCP / bare ZeroMQ{suffix} {ratio:.2f}  (asked 0.5)")


def print_small(slides: Sequence[str], seconds: float) -> None:
    """Batches of next to nothing: one row of 8 pixels."""
    command = (STREAM, "--slides", slides[0], "--batch", "1", "--patch", "8", "--reuse", "0.05")
    run = run_once("small", (*command, "--copy", "no"), 0, seconds)
    print(f"batches of one row of 8 px: {run.rate:.0f} a second")
    print_coordination("batches of one row", run.extra)


def print_peer(slides: Sequence[str], seconds: float) -> None:
    """Time for a batch of 64 rows of 224 px for 1, 2 and 4 consumers."""
    base = (STREAM, "--slides", *slides, *CHEAP, "--broadcast", "--copy", "no")
    for consumers in ("1", "2", "4"):
        ours = run_once("ours", (*base, "--consumers", consumers), 0, seconds)
        peer = ("benchmarks.tensorsocket_peer", "--consumers", consumers, "--batches", "64")
        theirs = run_once("TensorSocket", peer, 0, 60.0)
        each = 1000 * 64 / ours.extra["slowest"]
        delivered = theirs.extra["delivered"]
        # Without one the time is that of whoever got any, in a burst.
        other = f"{1000 * theirs.seconds / delivered:.1f} ms" if delivered else "no time"
        print(
            f"{consumers} consumers: {each:.1f} ms a batch; TensorSocket {other}, "
            f"{delivered:.0f} of 64 batches delivered to each of them"
        )


if __name__ == "__main__":
    main()
