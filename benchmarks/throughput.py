"""How fast patches come, beside the peers and beside what the codec could do at best.

``python -m benchmarks.throughput`` runs every row in turns, several times, and prints one table
from this one run. Run it on a machine that does nothing else. The figures to compare are the
ratios; absolute rates depend on machine and slides.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
from collections.abc import Sequence

from benchmarks.measure import Row, Table, benchmark_slides, peer_rows, run_interleaved

LIMIT, PEER, PEER_OPENSLIDE = "decode limit", "wsistream", "wsistream (OpenSlide)"


def chunkdl_rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """The rows of chunkdl."""
    on = ("benchmarks.stream", "--slides", *slides)
    return (
        # The wished reuse counts every tile that a position may touch; a few are not touched.
        Row("chunkdl tiff, reuse 1", ((*on, "--reuse", "0.97"),)),
        Row("chunkdl tiff, reuse 1, copy=True", ((*on, "--reuse", "0.97", "--copy"),)),
        Row("chunkdl tiff, reuse 1, relaxed", ((*on, "--reuse", "0.97", "--order", "relaxed"),)),
        # 66 is what reuse 0.97 comes to on these slides.
        Row("chunkdl tiff, the same as classes of the user", ((*on, "--hooks", "66"),)),
        Row("chunkdl tiff, reuse 4", ((*on, "--reuse", "3.95"),)),
        Row("chunkdl openslide, reuse 1", ((*on, "--reader", "openslide"),)),
    )


def rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    limit, wsistream, torch_dataloader = peer_rows(slides)
    with_openslide = tuple(v for v in wsistream.variants if "openslide" in v)
    return (
        limit,
        *chunkdl_rows(slides),
        wsistream,
        Row(PEER_OPENSLIDE, with_openslide[:1]),
        torch_dataloader,
    )


def markdown(table: Table) -> str:
    """The table of one run."""
    lines = [
        "| | patches/s | × wsistream | × wsistream (OpenSlide) | × decode limit | reuse "
        "| BigChunks / batch | patients / batch |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines.extend(
        f"| {row} | {table.rate(row):,.0f} | {table.ratio(row, PEER):.1f} "
        f"| {table.ratio(row, PEER_OPENSLIDE):.1f} | {table.ratio(row, LIMIT):.2f} "
        f"| {_reuse(table, row)} | {_mean(table, row, 'bigchunks_per_batch')} "
        f"| {_mean(table, row, 'patients_per_batch')} |"
        for row in table.commands
    )
    return "\n".join(lines)


def details(table: Table) -> str:
    """What only a chunkdl stream has."""
    lines = [
        "| | first batch, s | training process, ms of CPU / batch | memory of all processes, MiB |",
        "|---|--:|--:|--:|",
    ]
    for row in table.commands:
        if "first_batch_s" in table.of(row)[0].extra:
            figures = [
                statistics.median(run.extra[name] for run in table.of(row))
                for name in ("first_batch_s", "trainer_ms_per_batch", "memory_mib")
            ]
            lines.append("| {} | {:.1f} | {:.2f} | {:.0f} |".format(row, *figures))
    return "\n".join(lines)


def _reuse(table: Table, row: str) -> str:
    return "" if row == LIMIT else f"{1 / table.decoded_per_delivered(row):.2f}"


def _mean(table: Table, row: str, name: str) -> str:
    values = [run.extra[name] for run in table.of(row) if name in run.extra]
    return f"{statistics.median(values):.1f}" if values else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rows", nargs="*", help="only rows whose name contains one of these")
    options = parser.parse_args(arguments)
    chosen = [
        row
        for row in rows(benchmark_slides())
        if not options.rows
        or row.name in (LIMIT, PEER, PEER_OPENSLIDE)
        or any(text in row.name for text in options.rows)
    ]
    table = run_interleaved(chosen, options.repetitions, options.seconds)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{datetime.date.today()}, {platform.machine()}, {cores} cores, Python "
        f"{platform.python_version()}, {options.repetitions} interleaved runs of "
        f"{options.seconds:.0f} s, medians; 224 px, batch 64, uint8, level 0, four JPEG slides\n"
    )
    print(markdown(table))
    print()
    print(details(table))


if __name__ == "__main__":
    main()
