"""Does memory stay where it is? ``python -m benchmarks.soak --minutes 10``.

Streams without pause and takes the memory of every process twice a minute: proportional set size,
so shared pages count once. Prints one line a minute and at the end whether the promise was kept:
arenas and processes together within `memory_limit` plus 150 MiB a process (what the training
process has from importing torch is taken off), and no growth between the first and the last third.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import psutil

from benchmarks.measure import benchmark_slides
from chunkdl import Dataset, LightDL
from chunkdl.engine.settings.checks import parse_bytes

ALLOWANCE_MIB = 150
GROWTH_MIB = 16
SAMPLE_S = 30.0


def tree_mib() -> tuple[float, int]:
    """Memory of this process and all below it in MiB, and how many they are."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(p.memory_full_info().pss for p in processes) / 2**20, len(processes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Stream, look, and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--memory-limit", default="600MiB")
    options = parser.parse_args(arguments)
    limit_mib = parse_bytes(options.memory_limit, "memory_limit") / 2**20
    dataset = Dataset.from_slides(benchmark_slides())
    samples: list[float] = []
    with LightDL(dataset, memory_limit=options.memory_limit) as loader:
        before = psutil.Process().memory_full_info().uss / 2**20
        begun = looked = time.monotonic()
        while time.monotonic() - begun < options.minutes * 60:
            loader.get(timeout=60)
            if time.monotonic() - looked >= SAMPLE_S:
                looked = time.monotonic()
                memory, processes = tree_mib()
                samples.append(memory - before)
                print(f"{(looked - begun) / 60:5.1f} min  {samples[-1]:8.1f} MiB", flush=True)
        patches = loader.stats(60).patches
    third = max(1, len(samples) // 3)
    growth = statistics.median(samples[-third:]) - statistics.median(samples[:third])
    allowed = limit_mib + ALLOWANCE_MIB * processes
    print(
        f"{patches:,} patches; at most {max(samples):.0f} of {allowed:.0f} MiB; {growth:+.1f} MiB"
    )
    if max(samples) > allowed or growth > GROWTH_MIB:
        raise SystemExit("memory did not stay where it is")


if __name__ == "__main__":
    main()
