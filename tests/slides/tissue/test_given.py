"""Masks that are given as arrays lie in files, and the configuration of every process is small."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
import numpy as np
import numpy.typing as npt
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import SlideError
from chunkdl.slides.slide import Level, SlideInfo
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.slides.tissue.given import in_files
from chunkdl.slides.tissue.mask import mask_from
from tests.service.conftest import arguments

INFO = SlideInfo("s.tif", "tiff", (Level(500, 400, 1.0, 100, 100),), None)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1), (40, 50), (39, 51), (400, 500)])
def test_a_mask_in_a_file_is_the_mask_that_was_given(
    tmp_path: Path, kind: type[np.generic], shape: tuple[int, int]
) -> None:
    """Cell by cell, also where its rows are no whole bytes; anything but 0 is tissue."""
    rng = np.random.default_rng(1)
    given = (rng.integers(0, 3, size=shape) * 100).astype(kind)
    info = INFO if shape != (1, 1) else SlideInfo("s", "tiff", (Level(9, 9, 1.0, 9, 9),), None)
    (path,) = in_files([given], tmp_path / "masks")
    assert isinstance(path, str)
    kept, direct = mask_from(path, info), mask_from(given, info)
    assert np.array_equal(kept.cells, direct.cells)
    assert in_files([given.copy()], tmp_path / "masks") == [path]
    assert len(os.listdir(tmp_path / "masks")) == 1


def test_what_is_no_array_or_no_mask_stays_what_it_is(tmp_path: Path) -> None:
    """It is refused where it is used, in the words for what was given."""
    wrong: npt.NDArray[np.float64] = np.ones((40, 50))
    cube = np.ones((40, 50, 3), np.uint8)
    given = [None, "mask.png", tmp_path / "mask.png", wrong, cube]
    assert all(a is b for a, b in zip(in_files(given, tmp_path), given, strict=True))
    with pytest.raises(SlideError, match="the given tissue mask must be a 2-D array"):
        mask_from(wrong, INFO)  # type: ignore[arg-type]


def test_a_file_that_was_harmed_is_made_anew(tmp_path: Path) -> None:
    """Or a slide would be sought in half a mask."""
    mask = np.eye(40, 50, dtype=np.bool_)
    (path,) = in_files([mask], tmp_path)
    Path(path).write_bytes(Path(path).read_bytes()[:40])
    assert in_files([mask], tmp_path) == [path]
    assert np.array_equal(mask_from(path, INFO).cells, mask_from(mask, INFO).cells)


def test_masks_stay_arrays_where_no_file_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With one warning; nothing else changes."""
    (tmp_path / "file").write_text("no folder")
    masks = [np.eye(40, 50, dtype=np.bool_) for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        found = in_files(masks, tmp_path / "file" / "masks")
    assert all(a is b for a, b in zip(found, masks, strict=True))
    assert caplog.text.count("cannot be written to") == 1


def test_the_configuration_of_many_masks_is_small(tmp_path: Path) -> None:
    """300 masks of 208,000 cells are 60 MiB, and every process unpickles the configuration."""
    path = tmp_path / "s.tif"
    write_coordinate_slide(path, 512, 384, tile=128)
    rng = np.random.default_rng(1)
    patients = [
        Patient(
            number,
            {"a": Record("/", str(path)[1:], {"tissue_mask": rng.random((375, 500)) < 0.5})},
        )
        for number in range(300)
    ]
    config = configure(
        Dataset("masks", patients),
        arguments(
            smallchunk_size=32, bigchunk_size=64, batch_size=4, mask_cache=tmp_path / "masks"
        ),
    )
    assert len(cloudpickle.dumps(config)) < 300 * 2_000


MAKER = """
import os, sys
from pathlib import Path
import numpy as np
from chunkdl.slides.tissue.given import in_files

(path,) = in_files([np.eye(40, 50, dtype=np.bool_)], Path(sys.argv[1]))
print(path, flush=True)
sys.stdin.read()
"""
KEEPER = """
import sys
from chunkdl.slides.tissue.given import keep

keep([sys.argv[1]])
print("kept", flush=True)
sys.stdin.read()
"""


@contextmanager
def process_of(program: str, argument: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that waits for its input to end, and what it said before."""
    command, pipe = [sys.executable, "-c", program, argument], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_the_files_of_given_masks_go_with_the_last_process_that_uses_them(tmp_path: Path) -> None:
    """The one that made them may end before a service that reads them."""
    masks = tmp_path / "masks"
    with process_of(MAKER, str(masks)) as (maker, path), process_of(KEEPER, path) as (keeper, _):
        maker.communicate()
        assert Path(path).is_file()
        keeper.communicate()
        assert list(masks.iterdir()) == []


def test_what_a_killed_process_has_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    """Those of processes that live stay, and so does whatever somebody else keeps there."""
    masks = tmp_path / "masks"
    others = [masks / "given-mine", masks / f"given-{'0' * 16}", masks / f"given-{'1' * 16}"]
    for folder in others:
        folder.mkdir(parents=True)
        (folder / "mask.png").write_text("mine")
    (others[2] / "in-use").touch()
    with process_of(MAKER, str(masks)) as (killed, left):
        killed.kill()
        killed.wait(60)
    assert Path(left).is_file()
    with process_of(MAKER, str(masks)) as (_, first), process_of(MAKER, str(masks)) as (_, second):
        assert not Path(left).parent.exists()
        assert Path(first).is_file()
        assert Path(second).is_file()
        assert all((folder / "mask.png").read_text() == "mine" for folder in others)
