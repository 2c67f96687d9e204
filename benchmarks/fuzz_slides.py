"""Do the readers survive any file? ``python -m benchmarks.fuzz_slides --cases 20000 --seed 1``.

Small sound slides of every format are damaged, opened and read in child processes with a limit of
memory and of processor time. A case is right where it ends in a `ChunkdlError`, or in pixels of
which every byte was written. Anything else (another error, a signal, a call of more than 2 s, more
than 512 MiB) is a finding: its files are kept, and the program ends with 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chunkdl.errors import ChunkdlError
from chunkdl.slides.readers.registry import READERS, open_slide, read_structure
from chunkdl.slides.slide import PixelRule, Slide
from tests.slides.damage import damaged
from tests.slides.sound_files import Sound, sound_slides

CPU_S = 2.0
MEMORY_BYTES = 512 * 2**20
SILENCE_S = 60.0
"""Wall-clock time after which a child that says nothing waits for something that never comes."""
MOST_GROWN_MIB = 400
"""A library that meets the limit tells it in words of its own, or goes on."""
NO_MEMORY = ("nable to alloc", "annot alloc", "nsufficient mem", "nough memory", "ut of memory")
"""Parts of what libraries say."""
CASES_A_CHILD = 1000
REGION_PX = 96
NAMED = (*READERS, "openslide", "openslide", "openslide")
"""OpenSlide, which is asked last, is C that reads files of many kinds."""


# ---- One case


class Broken(Exception):
    """A promise was broken; the message says which."""


@dataclass(frozen=True)
class Case:
    """What is opened, and how.

    Attributes:
        slide: the sound slide that it was made of.
        what: the damage in words.
        files: bytes of the files by name.
        untouched: nothing was done that may show in the pixels.
    """

    slide: Sound
    what: str
    files: dict[str, bytes]
    untouched: bool


def case_of(slides: Sequence[Sound], seed: int, number: int) -> Case:
    """The case of that number; the same arguments give the same one."""
    rng = random.Random(f"{seed}-{number}")
    slide = rng.choice(slides)
    files = dict(slide.files)
    name = rng.choice(list(files))
    if rng.random() < 0.03:
        # Bytes behind the end are no damage.
        behind = b"" if "mirax" in slide.name or "dicom" in slide.name else rng.randbytes(50)
        files[name] += behind
        return Case(slide, f"{name}: nothing", files, True)
    done = damaged(files[name], rng)
    files[name] = done.data
    return Case(slide, f"{name}: {done.what}", files, done.data == slide.files[name])


def write_case(case: Case, folder: Path) -> Path:
    """Write the files of a case.

    Returns:
        The one to open.
    """
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / case.slide.file


class Clock:
    """The processor time of one call; a call that takes too long ends the process (SIGPROF)."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._began = 0.0

    def restart(self) -> None:
        """Begin with the next call."""
        self.stop()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        self._began = time.process_time()

    def stop(self) -> None:
        """End the last call."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        if self._began:
            self.longest_s = max(self.longest_s, time.process_time() - self._began)
        self._began = 0.0


def try_slide(case: Case, path: Path, rng: random.Random, clock: Clock) -> str:
    """Open and read: "read" or "refused".

    Raises:
        Broken: memory was asked for that was not there, or pixels were not written.
    """
    clock.restart()
    with suppress(ChunkdlError):
        read_structure(path)
    reader = "auto" if case.untouched or rng.random() < 0.7 else rng.choice(NAMED)
    rule = case.slide.rule
    if not case.untouched and rng.random() < 0.2:
        channels = rng.choice((None, (0,), (0, 1, 2), (2, 1, 5)))
        window = rng.choice((None, (0.0, 4095.0)))
        rule = PixelRule(channels, window, "srgb" if rng.random() < 0.5 else None)
    clock.restart()
    try:
        with closing(open_slide(path, reader, rule)) as slide:
            whole = _read(slide, rng, clock)
    except ChunkdlError as error:
        _no_memory_error(error)
        if case.untouched and case.slide.opens:
            raise Broken(f"a sound slide was refused: {error}") from error
        return "refused"
    return "read" if whole else "refused"


def _read(slide: Slide, rng: random.Random, clock: Clock) -> bool:
    """Read some of every level; whether nothing of it was refused."""
    whole = True
    clock.restart()
    try:
        slide.scanned()
    except ChunkdlError as error:
        _no_memory_error(error)
        whole = False
    for number, level in enumerate(slide.info.levels[:8]):
        width, height = min(level.width, REGION_PX), min(level.height, REGION_PX)
        away = level.width - width, level.height - height
        for x, y in ((0, 0), away, (rng.randint(0, away[0]), rng.randint(0, away[1]))):
            got = []
            for before in (37, 200):
                out = np.full((height, width, 3), before, np.uint8)
                clock.restart()
                try:
                    slide.read_into(out, number, x, y)
                except ChunkdlError as error:
                    _no_memory_error(error)
                    whole = False
                else:
                    got.append(out)
            if len(got) == 2 and not np.array_equal(got[0], got[1]):
                raise Broken(f"level {number} at ({x}, {y}): pixels were not written")
    return whole


def _no_memory_error(error: BaseException) -> None:
    """Raise `Broken` where an error stands for memory that a header claimed."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, MemoryError) or any(words in str(below) for words in NO_MEMORY):
            raise Broken(f"memory was asked for: {below}") from error
        below = below.__cause__ or below.__context__


# ---- The child


def _child(slides: Sequence[Sound], seed: int, first: int, last: int, folder: Path, to: int) -> int:
    """Try cases, and write a line for each; what is missing at the end was the end of it."""
    faulthandler.register(signal.SIGPROF, chain=True)
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, last):
        case = case_of(slides, seed, number)
        below = folder / str(number)
        path = write_case(case, below)
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        Path("/proc/self/clear_refs").write_text("5")
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, hard))
        clock, before_kib = Clock(), _resident_kib("VmRSS")
        try:
            outcome = try_slide(case, path, random.Random(number), clock)
            grown = (_resident_kib("VmHWM") - before_kib) / 2**10
            if grown > MOST_GROWN_MIB:
                raise Broken(f"{grown:.0f} MiB were taken")
        except BaseException as error:
            outcome = "broken"
            clock.stop()
            (below / "traceback.txt").write_text("".join(traceback.format_exception(error)))
        clock.stop()
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        grown_kib = _resident_kib("VmHWM") - before_kib
        os.write(to, f"{outcome} {clock.longest_s:.4f} {grown_kib}\n".encode())
        if outcome != "broken":
            shutil.rmtree(below)
    return 0


def _resident_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# ---- The parent


@dataclass
class Tally:
    """What came of all cases.

    Attributes:
        outcomes: how many were read, refused or broken.
        findings: for each that is broken its number and what happened.
        longest_s: the most processor time of one call.
        peak_mib: the most resident memory that one case added.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    longest_s: float = 0.0
    peak_mib: float = 0.0


def fuzz(seed: int, count: int, folder: Path, first: int = 0) -> Tally:
    """Try so many cases, from number `first` on; the files of findings stay in the folder."""
    (folder / "sound").mkdir()
    slides = sound_slides(folder / "sound")
    tally, number = Tally(), first
    while number < first + count:
        last = min(number + CASES_A_CHILD, first + count)
        for line in _lines_of_child(slides, seed, number, last, folder):
            outcome, *facts = line.split()
            if facts:
                tally.longest_s = max(tally.longest_s, float(facts[0]))
                tally.peak_mib = max(tally.peak_mib, int(facts[1]) / 1024)
            if outcome not in ("read", "refused"):
                tally.findings.append((number, outcome))
                kept = folder / str(number)
                case = case_of(slides, seed, number)
                (kept / "case.txt").write_text(f"{case.slide.name}: {case.what}\n")
                outcome = "broken"
            tally.outcomes[outcome] += 1
            number += 1
    shutil.rmtree(folder / "sound")
    return tally


def _lines_of_child(
    slides: Sequence[Sound], seed: int, first: int, last: int, folder: Path
) -> Iterator[str]:
    """What a child says of its cases; the last line is how it ended, where it did not live on."""
    reading, writing = os.pipe()
    # A fork saves a second of imports for each child that dies; this process has no other thread.
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reading)
            status = _child(slides, seed, first, last, folder, writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    said = 0
    killed = False
    with open(reading, "rb", buffering=0) as lines:
        rest = b""
        while True:
            if not killed and not select.select([reading], [], [], SILENCE_S)[0]:
                killed = True
                os.kill(process, signal.SIGKILL)
            data = lines.read(65536)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            said += len(whole)
            yield from (line.decode() for line in whole)
    _, status = os.waitpid(process, 0)
    if said < last - first:
        code = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-code).name if code < 0 else f"exit-{code}"
        yield "silent" if killed else {"SIGPROF": "too-slow"}.get(name, name)


def main(given: Sequence[str] | None = None) -> None:
    """Fuzz, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_slides", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", help="folder for the files of findings (default: a new one)")
    options = parser.parse_args(given)
    folder = Path(options.keep or tempfile.mkdtemp(prefix="fuzz-slides-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    began = time.monotonic()
    tally = fuzz(options.seed, options.cases, folder, options.first)
    wall_s = time.monotonic() - began
    for number, what in tally.findings:
        print(f"case {number}: {what}: {folder / str(number)}")
    print(
        f"{options.cases:,} cases: {tally.outcomes['read']:,} read, "
        f"{tally.outcomes['refused']:,} refused, {len(tally.findings):,} broken; "
        f"{options.cases / wall_s:.0f} a second, at most {tally.longest_s:.2f} s and "
        f"{tally.peak_mib:.0f} MiB for one"
    )
    if tally.findings:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
