"""The disk cache of masks: right, or made anew; never a crash."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl.errors import NoTissueError, SlideError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.cache import MaskCache, default_folder
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import TissueMask

MASK = TissueMask(np.random.default_rng(0).random((37, 53)) < 0.4, 5_300, 3_701)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


class Counting:
    """Makes a mask and counts how often it was asked to."""

    def __init__(self, mask: TissueMask = MASK) -> None:
        self.mask = mask
        self.calls = 0

    def __call__(self) -> TissueMask:
        self.calls += 1
        return self.mask


def check_equal(got: TissueMask, expected: TissueMask) -> None:
    np.testing.assert_array_equal(got.cells, expected.cells)
    assert got.cells.dtype == np.bool_
    assert (got.width0, got.height0) == (expected.width0, expected.height0)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.svs"
    path.write_bytes(b"pixels")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "masks"


@given(cells=hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=40)
def test_a_mask_comes_back_from_disk_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, cells: npt.NDArray[np.bool_]
) -> None:
    """Bit for bit, for another cache object as well, without being computed again."""
    folder = tmp_path_factory.mktemp("cache")
    slide = folder / "slide.svs"
    slide.touch()
    compute = Counting(TissueMask(cells, 123_456, 7))
    check_equal(MaskCache(folder).get_or_compute(slide, Otsu(), compute), compute.mask)
    check_equal(MaskCache(folder).get_or_compute(slide, Otsu(), compute), compute.mask)
    assert compute.calls == 1


def test_another_slide_detector_or_setting_has_its_own_mask(slide: Path, folder: Path) -> None:
    """Also a changed file of the same name; a link to the slide shares its mask."""
    cache, compute = MaskCache(folder), Counting()
    cache.get_or_compute(slide, Otsu(), compute)
    cache.get_or_compute(slide, HsvRange(), compute)
    cache.get_or_compute(slide, Otsu(closing=1), compute)
    cache.get_or_compute(slide, Otsu(), compute, settings="mpp=0.5")
    assert compute.calls == 4
    link = slide.with_name("link.svs")
    link.symlink_to(slide)
    cache.get_or_compute(link, Otsu(), compute)
    assert compute.calls == 4
    facts = slide.stat()
    os.utime(slide, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    cache.get_or_compute(slide, Otsu(), compute)
    assert compute.calls == 5
    slide.write_bytes(b"other pixels")
    os.utime(slide, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    cache.get_or_compute(slide, Otsu(), compute)
    assert compute.calls == 6
    copy = slide.with_name("copy.svs")
    copy.write_bytes(slide.read_bytes())
    os.utime(copy, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    cache.get_or_compute(copy, Otsu(), compute)
    assert compute.calls == 7


def test_each_image_of_a_file_has_its_own_mask(slide: Path, folder: Path) -> None:
    """They are different slides that lie in one file; a link to it shares them."""
    cache, compute = MaskCache(folder), Counting()
    link = slide.with_name("link.svs")
    link.symlink_to(slide)
    for image in ("", "#image=0", "#image=1"):
        for name in (slide, link):
            cache.get_or_compute(f"{name}{image}", Otsu(), compute)
    assert compute.calls == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer", "of another slide"])
def test_a_damaged_file_is_reported_computed_again_and_replaced(
    slide: Path, folder: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Wherever it is damaged, the mask is right and the next reader finds a sound file."""
    cache, compute = MaskCache(folder), Counting()
    cache.get_or_compute(slide, Otsu(), compute)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    other = slide.with_name("other.svs")
    other.touch()
    MaskCache(folder / "other").get_or_compute(other, Otsu(), compute)
    (foreign,) = (folder / "other").iterdir()
    damaged = {
        "flip": [
            whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)
        ],
        "cut": [whole[:length] for length in range(0, len(whole), 13)],
        "empty": [b""],
        "longer": [whole + b"x"],
        "of another slide": [foreign.read_bytes()],
    }
    for content in damaged[damage]:
        file.write_bytes(content)
        caplog.clear()
        calls = compute.calls
        check_equal(cache.get_or_compute(slide, Otsu(), compute), MASK)
        assert compute.calls == calls + 1
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert str(file) in caplog.text
        assert file.read_bytes() == whole


def test_a_huge_file_in_the_cache_is_not_read(
    slide: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sizes are checked before memory is taken."""
    cache = MaskCache(folder)
    cache.get_or_compute(slide, Otsu(), Counting())
    (file,) = folder.iterdir()
    os.truncate(file, 2**40)
    check_equal(cache.get_or_compute(slide, Otsu(), Counting()), MASK)
    assert "were expected" in caplog.text
    assert file.stat().st_size < 1_000


def test_a_folder_that_cannot_be_used_costs_one_warning(
    slide: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The masks are right all the same, for every slide."""
    (tmp_path / "file").touch()
    cache, compute = MaskCache(tmp_path / "file" / "masks"), Counting()
    for number in range(3):
        check_equal(cache.get_or_compute(slide, Otsu(closing=number), compute), MASK)
    assert compute.calls == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(tmp_path / "file" / "masks") in record.getMessage()


FULL_DISK = """
import pathlib, resource, sys
import numpy as np
from chunkdl.slides.tissue.cache import MaskCache
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import TissueMask

cells = np.random.default_rng(0).random((400, 500)) < 0.4
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
cache = MaskCache(pathlib.Path(sys.argv[1]))
for _ in range(2):
    assert cache.get_or_compute(sys.argv[2], Otsu(), lambda: TissueMask(cells, 9, 9)).width0 == 9
"""


def test_a_disk_that_gets_full_leaves_no_part_of_a_file(slide: Path, folder: Path) -> None:
    """A write that stops in the middle costs one warning and is not seen by any reader."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), str(slide)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.count("cannot be used") == 1
    assert list(folder.iterdir()) == []


def test_a_slide_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    """Before anything is computed."""
    compute = Counting()
    with pytest.raises(SlideError, match=r"gone\.svs") as caught:
        MaskCache(folder).get_or_compute(tmp_path / "gone.svs", Otsu(), compute)
    assert caught.value.slide == str(tmp_path / "gone.svs")
    assert compute.calls == 0


def test_what_computing_raises_is_passed_on_and_nothing_is_kept(slide: Path, folder: Path) -> None:
    """The next try computes again."""

    def fail() -> TissueMask:
        raise NoTissueError("nothing there", slide=str(slide))

    with pytest.raises(NoTissueError):
        MaskCache(folder).get_or_compute(slide, Otsu(), fail)
    compute = Counting()
    MaskCache(folder).get_or_compute(slide, Otsu(), compute)
    assert compute.calls == 1


@pytest.mark.parametrize(
    ("given_folder", "expected"),
    [
        ("/caches", "/caches/chunkdl/masks"),
        ("relative", "/home/me/.cache/chunkdl/masks"),
        ("", "/home/me/.cache/chunkdl/masks"),
    ],
)
def test_the_default_folder_follows_the_xdg_specification(
    monkeypatch: pytest.MonkeyPatch, given_folder: str, expected: str
) -> None:
    """A relative XDG_CACHE_HOME is ignored."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", given_folder)
    assert str(default_folder()) == expected


WRITER = """
import pathlib, sys
import numpy as np
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.cache import MaskCache
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import TissueMask

folder, slide, own = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
cells = np.random.default_rng(0).random((400, 500)) < 0.4
computed = 0

def compute():
    global computed
    computed += 1
    return TissueMask(cells, 5000, 4000)

print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    for file in folder.glob("*.mask") if number % 3 == own else ():
        file.unlink(missing_ok=True)
    mask = MaskCache(folder).get_or_compute(slide, Otsu(), compute)
    assert (mask.cells == cells).all()
print(computed)
"""


def test_processes_that_write_the_same_mask_at_once_never_see_half_a_file(
    slide: Path, folder: Path
) -> None:
    """Three processes delete, write and read one file; all masks are right, no warning comes."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(slide), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    computed = 0
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        out, err = writer.communicate(timeout=60)
        assert (writer.returncode, err) == (0, "")
        computed += int(out)
    assert computed > 3
    assert [file.suffix for file in folder.iterdir()] == [".mask"]


COMPUTER = """
import pathlib, sys
import numpy as np
from chunkdl.slides.tissue.cache import MaskCache
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import TissueMask

waits = 0

def on_progress():
    global waits
    waits += 1
    if waits == 1:
        print("waits", flush=True)

def compute():
    print("computes", flush=True)
    sys.stdin.readline()
    return TissueMask(np.ones((4, 5), bool), 50, 40)

cache = MaskCache(pathlib.Path(sys.argv[1]), on_progress)
assert cache.get_or_compute(sys.argv[2], Otsu(), compute).width0 == 50
print("has it", flush=True)
"""


@pytest.fixture
def computer(slide: Path, folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts processes that want the mask of the slide; one that computes it waits for a line."""
    started = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", COMPUTER, str(folder), str(slide)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answer(process: subprocess.Popen[str]) -> None:
    """Let a process that computes be done."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_one_process_computes_a_mask_and_the_others_wait_for_it(
    computer: Callable[[], subprocess.Popen[str]], folder: Path
) -> None:
    """They say that they wait, compute nothing, and no file of a lock is left."""
    first = computer()
    assert heard(first) == "computes"
    others = [computer(), computer()]
    assert [heard(other) for other in others] == ["waits", "waits"]
    answer(first)
    assert [heard(process) for process in (first, *others)] == ["has it"] * 3
    assert [file.suffix for file in folder.iterdir()] == [".mask"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_over_a_mask_leaves_it_to_one_of_those_that_wait(
    computer: Callable[[], subprocess.Popen[str]], folder: Path, how: signal.Signals
) -> None:
    """However it dies; the lock goes with it."""
    first = computer()
    assert heard(first) == "computes"
    second = computer()
    assert heard(second) == "waits"
    first.send_signal(how)
    assert heard(second) == "computes"
    third = computer()
    assert heard(third) == "waits"
    answer(second)
    assert [heard(process) for process in (second, third)] == ["has it"] * 2
    assert [file.suffix for file in folder.iterdir()] == [".mask"]


def test_a_process_that_computes_for_too_long_is_not_waited_for(
    computer: Callable[[], subprocess.Popen[str]],
    slide: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may run on another machine, where nobody sees that it hangs."""
    first = computer()
    assert heard(first) == "computes"
    monkeypatch.setattr("chunkdl.slides.tissue.cache.MOST_WAIT_S", 0.1)
    compute = Counting()
    check_equal(MaskCache(folder).get_or_compute(slide, Otsu(), compute), MASK)
    assert compute.calls == 1
    assert "another process has been computing the tissue mask" in caplog.text


def test_what_the_progress_raises_ends_the_wait(
    computer: Callable[[], subprocess.Popen[str]], slide: Path, folder: Path
) -> None:
    """Who waits for the mask of a slide that is left out meanwhile need not go on."""
    first = computer()
    assert heard(first) == "computes"

    def stop() -> None:
        raise SlideError("left out")

    compute = Counting()
    with pytest.raises(SlideError, match="left out"):
        MaskCache(folder, stop).get_or_compute(slide, Otsu(), compute)
    assert compute.calls == 0
    answer(first)
    assert heard(first) == "has it"


def test_a_lock_that_a_killed_process_has_left_stops_nobody(slide: Path, folder: Path) -> None:
    """The file of it is taken over and goes."""
    cache = MaskCache(folder)
    cache.get_or_compute(slide, Otsu(), Counting())
    (file,) = folder.iterdir()
    file.unlink()
    file.with_suffix(".lock").touch()
    cache.get_or_compute(slide, Otsu(), Counting())
    assert list(folder.iterdir()) == [file]


@dataclass(frozen=True)
class Named:
    """A detector of the user that is told apart by its key alone."""

    key: str
    name: str = "named"

    def __call__(self, rgb: Pixels) -> npt.NDArray[np.bool_]:
        return np.ones(rgb.shape[:2], np.bool_)


@given(text=st.text(min_size=1, max_size=20))
@settings(max_examples=20)
def test_a_setting_never_runs_into_the_key_of_the_detector(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """The same characters, shared out differently between the two, name another mask."""
    folder = tmp_path_factory.mktemp("cache")
    slide = folder / "a.svs"
    slide.touch()
    cache, compute = MaskCache(folder / "masks"), Counting()
    cache.get_or_compute(slide, Named(f"a{text}"), compute, settings="b")
    cache.get_or_compute(slide, Named("a"), compute, settings=f"{text}b")
    assert compute.calls == 2
