"""`LightDL.for_ddp` under torchrun: the same rows of a step for any number of ranks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chunkdl.slides.synthetic.writing import write_coordinate_slide

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_ddp.py"

PROGRAM = """
import os, sys
from pathlib import Path
from chunkdl import Dataset, LightDL
from tests.service.digests import row_digests

folder, rank, world_size = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dataset = Dataset.from_slides(sorted(folder.glob("*.tif")))
stream = {"smallchunk_size": 64, "bigchunk_size": 512, "num_bigchunks": 4, "seed": 9}
stream |= {"smallchunks_per_bigchunk": 20, "tissue": "none", "num_loaders": 1}
given = {"batch_size": 16 // world_size, "batches": 6, "memory_limit": "256MiB", **stream}
with LightDL.for_ddp(dataset, **given) as loader:
    lines = [" ".join(row_digests(batch)) for batch in loader]
(folder / f"{world_size}-{rank}").write_text("\\n".join(lines))
"""


def torchrun(ranks: int, program: Path, *arguments: str) -> str:
    """What a program prints that runs so many times."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, f"--nproc-per-node={ranks}", str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_goes_on_with_other_numbers_of_ranks(tmp_path: Path) -> None:
    """One rank trains; two go on from its checkpoint; the loss falls."""
    losses = []
    for ranks in (1, 2):
        printed = torchrun(ranks, EXAMPLE, "--steps", "10", "--folder", str(tmp_path))
        found = re.findall(r"rank (\d) of (\d): 10 batches, mean loss ([\d.]+)", printed)
        assert sorted((int(rank), int(size)) for rank, size, _ in found) == [
            (rank, ranks) for rank in range(ranks)
        ]
        losses.append(sum(float(loss) for _, _, loss in found) / ranks)
    assert losses == sorted(losses, reverse=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rows_of_a_step_are_the_same_for_any_number_of_ranks(tmp_path: Path) -> None:
    """One and four ranks: together they have the same rows in each step, in one order."""
    for number in range(2):
        slide = tmp_path / f"{number}.tif"
        write_coordinate_slide(slide, 1500, 1248, slide_id=number, tile=128, levels=(1, 2, 4))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    steps = {}
    for ranks in (1, 4):
        torchrun(ranks, program, str(tmp_path))
        files = [(tmp_path / f"{ranks}-{rank}").read_text() for rank in range(ranks)]
        parts = [[line.split() for line in file.splitlines()] for file in files]
        steps[ranks] = [[row for part in step for row in part] for step in zip(*parts, strict=True)]
    assert len(steps[1]) == 6
    assert all(len(set(step)) == 16 for step in steps[1])
    assert steps[1] == steps[4]
