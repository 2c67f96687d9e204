"""Train with Lightning in one process after another, each killed in the middle of a step.

The processes are forks of this one, which has imported everything and made nothing::

    lightning_killed.py SLIDES FOLDER STEPS
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from chunkdl import Dataset, LightDL
from tests.frameworks.common import STREAM
from tests.frameworks.lightning_model import QUIET, Model


class Killed(Model):
    """A model that does not survive its second step."""

    begun = 0

    def training_step(self, batch: Any, index: int) -> Any:
        """As ever, or never again."""
        self.begun += 1
        if self.begun == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(batch, index)


def train(slides: Path, folder: Path) -> None:
    """Go on from the last checkpoint, of which there is one after every step."""
    saves = ModelCheckpoint(
        dirpath=folder,
        every_n_train_steps=1,
        save_top_k=0,
        save_last=True,
        enable_version_counter=False,
    )
    last = folder / "last.ckpt"
    lightning.Trainer(**QUIET, max_epochs=100, callbacks=[saves], default_root_dir=folder).fit(
        Killed(),
        LightDL(Dataset.from_slides(slides), **STREAM, batches=3),
        ckpt_path=last if last.exists() else None,
        weights_only=True,
    )


def main() -> None:
    """One child per step."""
    warnings.simplefilter("ignore")
    slides, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for step in range(1, steps + 1):
        if (child := os.fork()) == 0:
            try:
                train(slides, folder)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"step {step} ended with status {status}")
        print("trained", step, flush=True)


if __name__ == "__main__":
    main()
