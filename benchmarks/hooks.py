"""What the user's own classes cost: ``python -m benchmarks.hooks``.

Three figures from one run, each from interleaved repetitions:

- the built-in classes beside the same work as classes of the user;
- the recipe of PyDmed's tutorial on chunkdl beside PyDmed's architecture, with equal reuse: the
  SmallChunks per BigChunk that PyDmed's clock gave are what chunkdl is told;
- the start: the time to the first batch of ten 5000x5000 regions beside the slowest single load.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence

from benchmarks.measure import Row, benchmark_slides, run_interleaved, run_once

BUILT_IN, HOOKS = "built-in classes", "the same as classes of the user"
PYDMED, CHUNKDL = "tutorial on PyDmed's architecture", "tutorial on chunkdl.pydmed"
LOADS_AT_START = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hooks", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    on = ("--slides", *benchmark_slides())
    stream = ("benchmarks.stream", *on, "--reuse", "0.97")
    known = run_once(BUILT_IN, stream, -1, 2.0)
    calls = str(round(known.extra["smallchunks_per_bigchunk"]))
    table = run_interleaved(
        [Row(BUILT_IN, (stream,)), Row(HOOKS, ((*stream, "--hooks", calls),))],
        options.repetitions,
        options.seconds,
    )
    _print_rates(table.rate(BUILT_IN), table.rate(HOOKS), table.ratio(HOOKS, BUILT_IN), calls)

    tutorial = "benchmarks.tutorial"
    ratios, rates, every = [], [], []
    for repetition in range(options.repetitions):
        pydmed = run_once(PYDMED, (tutorial, "pydmed", *on), repetition, options.seconds)
        per_load = max(1, round(pydmed.extra["smallchunks_per_bigchunk"]))
        mine = (tutorial, "chunkdl", *on, "--calls", str(per_load))
        chunkdl = run_once(CHUNKDL, mine, repetition, options.seconds)
        ratios.append(chunkdl.rate / pydmed.rate)
        rates.append((pydmed.rate, chunkdl.rate))
        every.append(per_load)
    print("\n| | patches/s | x PyDmed | SmallChunks / BigChunk |\n|---|--:|--:|--:|")
    per_load = round(statistics.median(every))
    print(f"| {PYDMED} | {statistics.median(r[0] for r in rates):,.0f} | 1 | {per_load} |")
    print(
        f"| {CHUNKDL} | {statistics.median(r[1] for r in rates):,.0f} "
        f"| {statistics.median(ratios):.1f} | {per_load} |"
    )

    cores = len(os.sched_getaffinity(0))
    starts = [
        run_once("start", (tutorial, "start", *on), n, 1.0) for n in range(options.repetitions)
    ]
    first = statistics.median(run.extra["first_batch_s"] for run in starts)
    slowest = statistics.median(run.extra["slowest_load_s"] for run in starts)
    shares = [
        run.extra["first_batch_s"] / (run.extra["slowest_load_s"] * LOADS_AT_START / cores)
        for run in starts
    ]
    print(
        f"\nfirst batch of {LOADS_AT_START} BigChunks after {first:.1f} s, the slowest single load "
        f"{slowest:.2f} s, {cores} cores: {statistics.median(shares):.2f} of slowest x "
        f"{LOADS_AT_START} / {cores}"
    )


def _print_rates(built_in: float, hooks: float, ratio: float, calls: str) -> None:
    print("| | patches/s | x built-in | SmallChunks / BigChunk |\n|---|--:|--:|--:|")
    print(f"| {BUILT_IN} | {built_in:,.0f} | 1 | {calls} |")
    print(f"| {HOOKS} | {hooks:,.0f} | {ratio:.2f} | {calls} |")


if __name__ == "__main__":
    main()
