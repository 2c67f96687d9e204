"""The examples run as they are printed, and do what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(program: str, folder: Path, *arguments: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / program), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
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
