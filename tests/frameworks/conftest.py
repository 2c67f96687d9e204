"""Two small slides that the frameworks train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkdl import Dataset
from chunkdl.slides.synthetic.writing import write_tissue_slide
from tests.frameworks.common import Rows, first_batches


@pytest.fixture(scope="session")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two slides."""
    folder = tmp_path_factory.mktemp("frameworks")
    for seed, name in enumerate(("one", "two")):
        write_tissue_slide(folder / f"{name}.tif", 512, 512, seed=seed)
    return folder


@pytest.fixture(scope="session")
def two_patients(two_slides: Path) -> Dataset:
    """The slides as patients."""
    return Dataset.from_slides(two_slides)


@pytest.fixture(scope="session")
def stream(two_patients: Dataset) -> list[Rows]:
    """The rows of the first batches of the stream."""
    return first_batches(two_patients, 24)
