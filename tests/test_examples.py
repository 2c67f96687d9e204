"""The examples run as they are printed, and do what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(program: str, folder: Path, *arguments: str, ranks: int = 0) -> str:
    """What an example prints; with ranks under torchrun."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
    done = subprocess.run(
        [sys.executable, *(torchrun if ranks else ()), str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_classifier_learns(tmp_path: Path) -> None:
    """The training script falls in loss, tells held-out slides apart, and resumes its stream."""
    printed = run("train_classifier.py", tmp_path, "--steps", "30", "--every", "15")
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed)]
    right = [float(share) for share in re.findall(r"right ([\d.]+)%", printed)]
    assert losses == sorted(losses, reverse=True)
    assert right[-1] > 85
    assert "goes on with batch 30" in printed


@pytest.mark.slow
def test_the_program_of_pydmed_learns(tmp_path: Path) -> None:
    """It sees its patients equally often, and tells those apart that it has never seen."""
    printed = run("pydmed_training.py", tmp_path)
    counts = re.findall(r"\d: (\d+)", printed)
    right = re.search(r"([\d.]+)% are right", printed)
    assert len(counts) == 2
    assert sum(map(int, counts)) == 20 * 32
    assert min(map(int, counts)) > 200
    assert right is not None
    assert float(right[1]) > 85


@pytest.mark.slow
def test_the_heat_maps_of_pydmed_show_the_tissue(tmp_path: Path) -> None:
    """Each tile of each slide is there once, and the map lies where the tissue is."""
    printed = run("pydmed_heatmap.py", tmp_path)
    assert printed.count(": 64 tiles, heat map (64, 64)") == 3
    assert printed.count("upsampled to (160, 160)") == 3
    shares = [float(share) for share in re.findall(r"([\d.]+)% of it says rightly", printed)]
    assert len(shares) == 3
    assert min(shares) > 95


@pytest.mark.slow
def test_the_training_with_lightning_learns_and_goes_on(tmp_path: Path) -> None:
    """The second run has the batches behind those of the first, and validates whole grids."""
    printed = run("train_lightning.py", tmp_path, "--epochs", "4", "--every", "10")
    batches = re.findall(r"trained on batches (\d+) to (\d+)", printed)
    right = [float(share) for share in re.findall(r"right ([\d.]+)%", printed)]
    assert batches == [("0", "19"), ("20", "39")]
    assert len(right) == 4
    assert right[-1] > 85


@pytest.mark.slow
def test_the_training_with_accelerate_goes_on_with_other_processes(tmp_path: Path) -> None:
    """Two processes go on where one has saved its state."""
    folder = tmp_path / "shared"
    folder.mkdir()
    arguments = "--steps", "12", "--folder", str(folder)
    printed = run("train_accelerate.py", tmp_path, *arguments)
    printed += run("train_accelerate.py", tmp_path, *arguments, ranks=2)
    runs = re.findall(r"batches (\d+) to (\d+): mean loss ([\d.]+)", printed)
    assert [pair[:2] for pair in runs] == [("0", "11"), ("12", "23")]
    assert float(runs[1][2]) < float(runs[0][2])
