"""What choices of sampling cost: ``python -m benchmarks.sampling``.

Interleaved runs, one table: the plain stream, three resolutions at once, a pixel filter, and the
recipe of the Midnight models by chunkdl and by wsistream. The figures to compare are the ratios.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks.measure import Row, Table, benchmark_slides, peer_rows, run_interleaved

LIMIT, PLAIN, THREE, FILTER = "decode limit", "plain", "three resolutions", "HSV filter"
SAMPLED = "HSV filter, step=4"
OURS, THEIRS = "Midnight's recipe, chunkdl", "Midnight's recipe, wsistream"
NEAREST = "Midnight's recipe, chunkdl, nearest levels"


def rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    on = ("--slides", *slides)
    stream = ("benchmarks.stream", *on)
    recipe = ("benchmarks.midnight_recipe",)
    return (
        peer_rows(slides)[0],
        Row(PLAIN, (stream,)),
        Row(THREE, ((*stream, "--mpp", "0.25", "0.5", "1"),)),
        Row(FILTER, ((*stream, "--pixel-filter", "midnight"),)),
        Row(SAMPLED, ((*stream, "--pixel-filter", "midnight", "--step", "4"),)),
        Row(OURS, ((*recipe, "chunkdl", *on),)),
        Row(NEAREST, ((*recipe, "chunkdl", "--nearest", *on),)),
        Row(
            THEIRS,
            tuple(
                (*recipe, "wsistream", *on, "--backend", backend, "--start", start)
                for backend in ("openslide", "tiffslide")
                for start in ("fork", "spawn")
            ),
        ),
    )


def markdown(table: Table) -> str:
    """The table of one run."""
    lines = [
        "| | patches/s | × plain | decoded, × decode limit | decoded / target px | refused |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines.extend(
        f"| {row} | {table.rate(row):,.0f} | {table.ratio(row, PLAIN):.2f} "
        f"| {_decoding(table, row)} | {_extra(table, row, 'decoded_share')} "
        f"| {_extra(table, row, 'refused_share')} |"
        for row in table.commands
    )
    lines.extend(
        f"\n{row}: {table.ratio(row, THEIRS):.1f} x wsistream"
        for row in (OURS, NEAREST)
        if {row, THEIRS} <= table.commands.keys()
    )
    return "\n".join(lines)


def _decoding(table: Table, row: str) -> str:
    """Pixels that were decoded in a second, as a part of the decode limit."""
    if LIMIT not in table.commands or not table.of(row)[0].decoded_px:
        return ""
    pairs = zip(table.of(row), table.of(LIMIT), strict=True)
    ratios = [
        one.decoded_px / one.seconds / (limit.decoded_px / limit.seconds) for one, limit in pairs
    ]
    return f"{statistics.median(ratios):.2f}"


def _extra(table: Table, row: str, name: str) -> str:
    values = [run.extra[name] for run in table.of(row) if name in run.extra]
    return f"{statistics.median(values):.2f}" if values else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rows", nargs="*", help="only rows whose name contains one of these")
    options = parser.parse_args(arguments)
    chosen = [
        row
        for row in rows(benchmark_slides())
        if not options.rows or row.name == PLAIN or any(text in row.name for text in options.rows)
    ]
    print(markdown(run_interleaved(chosen, options.repetitions, options.seconds)))


if __name__ == "__main__":
    main()
