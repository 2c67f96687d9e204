"""Ranks that torchrun or mp.spawn has started share one stream, and go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.frameworks.common import run_program, torchrun

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("launcher", "arguments"), [(torchrun(2), []), ((), ["spawn"])], ids=["torchrun", "mp.spawn"]
)
def test_the_ranks_together_have_the_rows_of_one_process(
    two_slides: Path, tmp_path: Path, launcher: Sequence[str], arguments: Sequence[str]
) -> None:
    """Each step's rows, first those of the first rank; after a resume as well."""
    run_program("ranks.py", str(two_slides), str(tmp_path), *arguments, launcher=launcher)
    ranks = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    together = [one + other for one, other in zip(*ranks, strict=True)]
    assert together == torch.load(tmp_path / "alone.pt", weights_only=True)
