"""A notebook: classes of its cells, lambdas, and the stop button."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frameworks.common import run_program


@pytest.mark.slow
def test_a_notebook_trains_and_goes_on_after_an_interrupt(two_slides: Path, tmp_path: Path) -> None:
    """What a cell defines goes to the processes, and an interrupt ends a loop and nothing else."""
    printed = run_program(
        "notebook.py", str(two_slides), str(tmp_path), IPYTHONDIR=str(tmp_path / "ipython")
    )
    assert printed.strip() == "[0, 1, 2, 3] 127 torch.float32 5 6 [7, 8, 9, 10]"
