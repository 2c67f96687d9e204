"""Files that the tests of the readers are made on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chunkdl.slides.slide import Pixels, Slide
from chunkdl.slides.synthetic.writing import write_tissue_slide


def read(slide: Slide, level: int, x: int, y: int, width: int, height: int) -> Pixels:
    """The region in a new array, filled beforehand so that a byte left out shows."""
    out = np.full((height, width, 3), 137, np.uint8)
    slide.read_into(out, level, x, y)
    return out


@pytest.fixture
def read_region() -> Callable[[Slide, int, int, int, int, int], Pixels]:
    """Reads a region (slide, level, x, y, width, height) into a new array."""
    return read


@pytest.fixture(scope="session")
def tissue_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG pyramid of 1500x1100 pixels, levels 1 and 4, tiles of 256."""
    path = tmp_path_factory.mktemp("slides") / "tissue.tif"
    write_tissue_slide(path, 1500, 1100, seed=5, levels=(1, 4))
    return path


@pytest.fixture(scope="session")
def picture() -> Pixels:
    """900x700 pixels with edges, texture and smooth parts, no two rows alike."""
    rng = np.random.default_rng(9)
    y, x = np.mgrid[0:700, 0:900]
    smooth = np.stack([x * 255 / 899, y * 255 / 699, (x + y) * 255 / 1598], axis=-1)
    smooth += rng.normal(0, 20, smooth.shape)
    smooth[(x // 37 + y // 23) % 2 == 0] *= 0.4
    pixels: Pixels = np.clip(smooth, 0, 255).astype(np.uint8)
    return pixels
