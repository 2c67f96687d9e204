"""Compare programs fairly on a machine whose speed drifts: interleave them, pair their ratios.

Every run is a fresh process tree, and only one runs at a time. A repetition runs every row once,
each time beginning with another row; a ratio is taken between two rows of one repetition, minutes
apart at most, and the figure is the median of these ratios over the repetitions.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TRIALS = 3
"""Runs of half the time by which the best variant of a row is chosen."""
START_AND_STOP_S = 120.0
"""What a program may take beside its measured time before it counts as hanging."""

SLIDES = (
    "lung-scc-biopsy-gt450-40x.svs",
    "lung-scc-biopsy-gt450-20x.svs",
    "skin-molluscum-20x-generic.tiff",
    "colon-adenoma-20x-tile1024.tif",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: as the table shows it.
        variants: the arguments after ``python -m``, without ``--seconds``; of several, the one that
            is fastest in trials before the first repetition is the row.
    """

    name: str
    variants: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one row did; see `benchmarks.peers.Result` for the figures.

    `extra` has whatever else the program printed.
    """

    row: str
    repetition: int
    patches: float
    seconds: float
    decoded_px: int
    distinct: int
    extra: dict[str, float]

    @property
    def rate(self) -> float:
        """Patches per second."""
        return self.patches / self.seconds


@dataclass(frozen=True, slots=True)
class Table:
    """All runs of all rows.

    Attributes:
        commands: row name to the arguments that were run, in the order of the rows.
        runs: in the order in which they ran.
    """

    commands: dict[str, tuple[str, ...]]
    runs: tuple[Run, ...]

    def of(self, row: str) -> list[Run]:
        """The runs of one row, by repetition."""
        return sorted((run for run in self.runs if run.row == row), key=lambda run: run.repetition)

    def rate(self, row: str) -> float:
        """Median patches per second."""
        return statistics.median(run.rate for run in self.of(row))

    def ratio(self, row: str, to: str) -> float:
        """How many times the rate of `to` the rate of `row` is: the median of the paired ratios."""
        return statistics.median(self.ratios(row, to))

    def ratios(self, row: str, to: str) -> list[float]:
        """The ratio of both rates in each repetition."""
        pairs = zip(self.of(row), self.of(to), strict=True)
        return [one.rate / other.rate for one, other in pairs]

    def decoded_per_delivered(self, row: str) -> float:
        """Pixels decoded per pixel delivered in patches of 224, median."""
        return statistics.median(run.decoded_px / (run.patches * 224**2) for run in self.of(row))


def run_interleaved(rows: Sequence[Row], repetitions: int, seconds: float) -> Table:
    """Run every row `repetitions` times for `seconds` each, in turns.

    Raises:
        RuntimeError: a program failed or hung; the message has its command and what it wrote.
    """
    commands = {row.name: fastest(row, seconds) for row in rows}
    names = list(commands)
    runs = [
        run_once(name, commands[name], repetition, seconds)
        for repetition in range(repetitions)
        for name in rotated(names, repetition)
    ]
    return Table(commands, tuple(runs))


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names in the same cyclic order, beginning with another one each time."""
    first = by % len(names)
    return [*names[first:], *names[:first]]


def fastest(row: Row, seconds: float) -> tuple[str, ...]:
    """The variant of the row with the best median of some interleaved trials."""
    if len(row.variants) == 1:
        return row.variants[0]
    rates: dict[tuple[str, ...], list[float]] = {variant: [] for variant in row.variants}
    for _ in range(TRIALS):
        for variant in row.variants:
            rates[variant].append(run_once(row.name, variant, -1, seconds / 2).rate)
    return max(row.variants, key=lambda variant: statistics.median(rates[variant]))


def run_once(name: str, command: Sequence[str], repetition: int, seconds: float) -> Run:
    """Run one program in a process tree of its own, of which nothing is left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--seconds", str(seconds)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds + START_AND_STOP_S)
        except subprocess.TimeoutExpired as late:
            raise RuntimeError(f"{name} hung and was killed: {' '.join(command)}") from late
        finally:
            kill_session(process.pid)
    if process.returncode != 0:
        raise RuntimeError(
            f"{name} ended with {process.returncode}: {' '.join(command)}\n{err[-4000:]}"
        )
    figures = json.loads(out.splitlines()[-1])
    fields = {key: figures.pop(key) for key in ("patches", "seconds", "decoded_px", "distinct")}
    return Run(row=name, repetition=repetition, extra=figures, **fields)


def kill_session(leader: int) -> None:
    """End what a program left behind, or the program itself when it hangs."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def benchmark_slides() -> tuple[str, ...]:
    """Paths of the slides of the benchmark.

    Raises:
        FileNotFoundError: the folder (CHUNKDL_SLIDES, else shared/slides beside the repository)
            lacks one of them.
    """
    default = REPOSITORY.parent / "shared" / "slides"
    folder = Path(os.environ.get("CHUNKDL_SLIDES", default)).resolve()
    missing = [name for name in SLIDES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"no {', '.join(missing)} in {folder}: set CHUNKDL_SLIDES to the folder that has them"
        )
    return tuple(str(folder / name) for name in SLIDES)


def peer_rows(slides: Sequence[str]) -> tuple[Row, ...]:
    """The rows that chunkdl is compared with."""
    peer = ("benchmarks.peers",)
    on = ("--slides", *slides)
    return (
        Row("decode limit", ((*peer, "limit", *on),)),
        Row(
            "wsistream",
            tuple(
                (*peer, "wsistream", *on, "--backend", backend, "--start", start)
                for backend in ("openslide", "tiffslide")
                for start in ("fork", "spawn")
            ),
        ),
        Row("torch DataLoader", ((*peer, "torch-dataloader", *on),)),
    )
