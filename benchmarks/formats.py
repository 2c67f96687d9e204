"""How fast each format is read, beside OpenSlide on the same windows of level 0.

``python -m benchmarks.formats`` reads every slide below a folder (CHUNKDL_SLIDES, else
shared/slides beside the repository): windows of 2048 pixels on tissue, at random places, the same
for both programs. A repetition runs both programs once for each slide, each in a process of its
own that reads every window once; they take turns at being first. The first repetition warms the
page cache and does not count. A ratio is taken within a repetition, the figure is their median.

OpenSlide is called as its C library is meant to be: into memory that is there, and its pixels are
left as they come (premultiplied ARGB). Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openslide
import openslide.lowlevel as library

from benchmarks.measure import REPOSITORY, rotated
from chunkdl.errors import SlideError
from chunkdl.slides.readers.argb import composite
from chunkdl.slides.readers.registry import open_slide, read_structure
from chunkdl.slides.search import slides_at
from chunkdl.slides.slide import Slide
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import compute_mask

SIDE_PX = 2048
TISSUE_SHARE = 0.4
"""Share of a window that is tissue, unless the slide has no such windows."""
CANDIDATES = 200
CHUNKDL, OPENSLIDE = "chunkdl", "openslide"
PROGRAMS = (CHUNKDL, OPENSLIDE)
DEADLINE_S = 600.0
BEGIN, END = "<!-- begin of the table of benchmarks.formats -->", "<!-- end of that table -->"

Window = tuple[int, int, int, int]
"""x, y, width, height; level-0 pixels."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a process reads.

    Attributes:
        path: of the slide; for OpenSlide a file.
        windows: in the frame of the program that reads them.
    """

    path: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Took:
    """What one process took for all windows, seconds."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """One slide that is read.

    Attributes:
        name: as the table shows it.
        format: what chunkdl calls it.
        reader: that "auto" chose.
        tasks: by program; without OpenSlide where that refuses the slide.
        difference: the largest of a sample of the first window between both, None without both.
    """

    name: str
    format: str
    reader: str
    tasks: dict[str, Task]
    difference: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """One slide that is not read, and what chunkdl says of it."""

    name: str
    reason: str


# ---- What one process does


def read_by_chunkdl(task: Task) -> Took:
    """Read all windows with the reader that "auto" chooses."""
    with closing(open_slide(task.path)) as slide:
        out = np.empty((SIDE_PX, SIDE_PX, 3), np.uint8)

        def read(window: Window) -> None:
            x, y, width, height = window
            slide.read_into(out[:height, :width], 0, x, y)

        return _timed(read, task.windows)


def read_by_openslide(task: Task) -> Took:
    """Read all windows with OpenSlide alone."""
    handle = library.open(task.path)
    out = np.empty((SIDE_PX, SIDE_PX), np.uint32)
    buffer = out.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))

    def read(window: Window) -> None:
        x, y, width, height = window
        library._read_region(handle, buffer, x, y, 0, width, height)

    try:
        return _timed(read, task.windows)
    finally:
        library.close(handle)


def _timed(read: Callable[[Window], None], windows: Sequence[Window]) -> Took:
    # A program loads its codecs at the first pixel, which is not a part of reading.
    read((0, 0, 1, 1))
    wall, cpu = time.perf_counter(), time.process_time()
    for window in windows:
        read(window)
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


# ---- Which windows


def case_of(name: str, path: str, count: int) -> Case | Refusal:
    """A slide and `count` windows of it, or why it is not read."""
    try:
        with closing(open_slide(path)) as slide:
            windows = tissue_windows(slide, count)
            tasks = {CHUNKDL: Task(path, windows)}
            other = openslide_task(path, slide, windows)
            if other is not None:
                tasks[OPENSLIDE] = other
            difference = None if other is None else _difference(slide, windows[0], other)
            structure = read_structure(path)
            return Case(name, structure.format, slide.info.reader, tasks, difference)
    except SlideError as error:
        return Refusal(name, str(error).rpartition(" [slide ")[0].replace(path, name))


def tissue_windows(slide: Slide, count: int) -> tuple[Window, ...]:
    """Windows at random places that are tissue, as far as the slide has such places."""
    level = slide.info.levels[0]
    width, height = min(SIDE_PX, level.width), min(SIDE_PX, level.height)
    mask = compute_mask(slide, Otsu())
    rng = np.random.default_rng(0)
    places = rng.integers(0, (level.width - width + 1, level.height - height + 1), (CANDIDATES, 2))
    shares = [float(mask.fraction([x], [y], [x + width], [y + height])[0, 0]) for x, y in places]
    enough = [place for place, share in enumerate(shares) if share >= TISSUE_SHARE]
    densest = sorted(range(CANDIDATES), key=lambda place: -shares[place])
    chosen = enough if len(enough) >= count else densest
    return tuple((int(places[k][0]), int(places[k][1]), width, height) for k in chosen[:count])


def openslide_task(path: str, slide: Slide, windows: Sequence[Window]) -> Task | None:
    """The same windows in OpenSlide's frame, None where it refuses the slide."""
    file = path
    if os.path.isdir(path):
        file = str(min(Path(path).glob("*.dcm")))
    try:
        with openslide.OpenSlide(file) as other:
            left = top = 0
            # In an SCN file OpenSlide counts from the corner of the glass, chunkdl of the area.
            if slide.info.reader != "openslide" and other.detect_format(file) == "leica":
                left = int(other.properties["openslide.region[0].x"])
                top = int(other.properties["openslide.region[0].y"])
    except openslide.OpenSlideError:
        return None
    return Task(file, tuple((x + left, y + top, w, h) for x, y, w, h in windows))


def _difference(slide: Slide, window: Window, other: Task) -> int:
    """The largest difference of a sample in one window, OpenSlide's pixels laid on white."""
    x, y, width, height = window
    ours, theirs = (np.empty((height, width, 3), np.uint8) for _ in PROGRAMS)
    slide.read_into(ours, 0, x, y)
    argb = np.empty((height, width), np.uint32)
    handle = library.open(other.path)
    try:
        buffer = argb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        library._read_region(handle, buffer, *other.windows[0][:2], 0, width, height)
    finally:
        library.close(handle)
    composite(argb, (255, 255, 255), theirs)
    return int(np.abs(ours.astype(np.int16) - theirs).max())


# ---- The runs


def run(program: str, task: Task) -> Took:
    """Read a task in a process of its own.

    Raises:
        RuntimeError: it failed; the message has what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.formats", "--program", program],
        input=json.dumps(asdict(task)),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed on {task.path}:\n{done.stderr[-4000:]}")
    return Took(**json.loads(done.stdout.splitlines()[-1]))


def run_interleaved(cases: Sequence[Case], repetitions: int) -> dict[str, dict[str, list[Took]]]:
    """What each program took for each slide in each repetition, by slide and program."""
    runs = {case.name: {program: list[Took]() for program in case.tasks} for case in cases}
    for repetition in range(-1, repetitions):
        for case in cases:
            for program in rotated(list(case.tasks), repetition % len(case.tasks)):
                took = run(program, case.tasks[program])
                if repetition >= 0:
                    runs[case.name][program].append(took)
    return runs


# ---- The table


def markdown(
    cases: Sequence[Case], refusals: Sequence[Refusal], runs: dict[str, dict[str, list[Took]]]
) -> str:
    """The table of one run, and what is refused."""
    lines = [
        "| slide | format | reader | Mpx/s of a core | OpenSlide | ratio | ratio by wall time "
        "| largest difference |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [_line(case, runs[case.name]) for case in cases]
    lines += ["", *(f"- `{refusal.name}` is refused: {refusal.reason}" for refusal in refusals)]
    return "\n".join(lines).rstrip()


def _line(case: Case, runs: dict[str, list[Took]]) -> str:
    pixels = sum(width * height for *_, width, height in case.tasks[CHUNKDL].windows)
    ours = runs[CHUNKDL]
    start = f"| `{case.name}` | {case.format} | {case.reader} | {_rate(pixels, ours)} |"
    if OPENSLIDE not in runs:
        return f"{start} refuses it | | | |"
    theirs = runs[OPENSLIDE]
    pairs = list(zip(ours, theirs, strict=True))
    by_cpu = statistics.median(other.cpu_s / one.cpu_s for one, other in pairs)
    by_wall = statistics.median(other.wall_s / one.wall_s for one, other in pairs)
    return f"{start} {_rate(pixels, theirs)} | {by_cpu:.1f} | {by_wall:.1f} | {case.difference} |"


def _rate(pixels: int, runs: Sequence[Took]) -> str:
    return f"{pixels / 1e6 / statistics.median(took.cpu_s for took in runs):.0f}"


def write_between_marks(page: Path, text: str) -> None:
    """Put the text between the two marks of a page.

    Raises:
        ValueError: the page has not both marks.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} needs the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def measure(folder: str, options: argparse.Namespace) -> str:
    """The text of one run over the slides of a folder."""
    slides = [
        (relative, os.path.join(root, relative))
        for root, relative in slides_at(folder)
        if not options.slides or any(part in relative for part in options.slides)
    ]
    found = [case_of(name, path, options.windows) for name, path in slides]
    cases = [case for case in found if isinstance(case, Case)]
    refusals = [refusal for refusal in found if isinstance(refusal, Refusal)]
    runs = run_interleaved(cases, options.repetitions)
    head = (
        f"{datetime.date.today()}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"Python {platform.python_version()}, OpenSlide {openslide.__library_version__}, "
        f"{options.windows} windows of {SIDE_PX} px, {options.repetitions} interleaved "
        "repetitions, medians:"
    )
    return f"{head}\n\n{markdown(cases, refusals, runs)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read every slide with both programs and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.formats", description=__doc__)
    parser.add_argument("--windows", type=int, default=8, help="of each slide")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--slides", nargs="*", help="only slides whose name contains one of these")
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    parser.add_argument("--program", choices=PROGRAMS, help="read the task on the standard input")
    options = parser.parse_args(arguments)
    if options.program:
        given = json.load(sys.stdin)
        task = Task(given["path"], tuple((x, y, w, h) for x, y, w, h in given["windows"]))
        took = {CHUNKDL: read_by_chunkdl, OPENSLIDE: read_by_openslide}[options.program](task)
        print(json.dumps(asdict(took)))
        return
    default = REPOSITORY.parent / "shared" / "slides"
    text = measure(os.path.abspath(os.environ.get("CHUNKDL_SLIDES", default)), options)
    print(text)
    if options.write:
        write_between_marks(options.write, text)


if __name__ == "__main__":
    main()
