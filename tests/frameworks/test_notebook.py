"""A notebook: classes of its cells, lambdas, and the stop button."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed.*:ResourceWarning"),
]

CELLS = (
    """
import os, signal
import torch
from chunkdl import Dataset, LightDL

class Dimmed:
    def __call__(self, image):
        return image // 2

dataset = Dataset.from_slides({folder!r})
stream = dict(batch_size=8, smallchunk_size=32, bigchunk_size=256, num_bigchunks=4,
              tissue="none", memory_limit="128MiB", num_loaders=1, num_collectors=1)
plain = LightDL(dataset, **stream, batches=4)
numbers = [batch.number for batch in plain]
""",
    """
dimmed = LightDL(dataset, tfms=Dimmed(), **stream)
shown = LightDL(dataset, tfms=lambda image: torch.from_numpy(image.copy()).float(), **stream)
brightest = int(next(iter(dimmed))["image"].max()), next(iter(shown))["image"].dtype
dimmed.close(); shown.close()
""",
    # The stop button sends SIGINT to the group of the kernel, where the loader's processes are too.
    """
stopped = None
try:
    for batch in plain:
        if batch.number == 5:
            os.killpg(os.getpgid(0), signal.SIGINT)
            signal.pause()
except KeyboardInterrupt:
    stopped = batch.number
""",
    """
after = plain.next_batch(60).number
again = [batch.number for batch in plain]
plain.close()
print(numbers, *brightest, stopped, after, again)
""",
)


def test_a_notebook_trains_and_is_stopped(
    two_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cell defines goes to the processes; after an interrupt the next batch comes."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    cells = [
        nbformat.v4.new_code_cell(cell.replace("{folder!r}", repr(str(two_slides))))
        for cell in CELLS
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    (printed,) = notebook.cells[-1].outputs
    assert printed.text.strip() == "[0, 1, 2, 3] 127 torch.float32 5 6 [7, 8, 9, 10]"
