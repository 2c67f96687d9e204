"""A notebook whose cells make classes and lambdas, and which is stopped once::

    notebook.py SLIDES FOLDER

Prints what its last cell prints.
"""

from __future__ import annotations

import sys

import nbformat
from nbclient import NotebookClient

CELLS = (
    """
import os, signal
import torch
from chunkdl import Dataset, LightDL
from tests.frameworks.common import STREAM

class Dimmed:
    def __call__(self, image):
        return image // 2

dataset = Dataset.from_slides({slides!r})
plain = LightDL(dataset, **STREAM, batches=4)
numbers = [batch.number for batch in plain]
""",
    """
with LightDL(dataset, tfms=Dimmed(), **STREAM) as dimmed:
    brightest = int(dimmed.next_batch(60)["image"].max())
with LightDL(dataset, tfms=lambda image: torch.from_numpy(image.copy()).float(), **STREAM) as whole:
    kind = whole.next_batch(60)["image"].dtype
""",
    # The stop button sends SIGINT to the group of the kernel, where the loader's processes are too.
    """
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
print(numbers, brightest, kind, stopped, after, again)
""",
)


def main() -> None:
    """Run all cells in a kernel."""
    slides, folder = sys.argv[1:3]
    cells = [nbformat.v4.new_code_cell(cell.replace("{slides!r}", repr(slides))) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=folder)
    (printed,) = notebook.cells[-1].outputs
    print(printed.text)


if __name__ == "__main__":
    main()
