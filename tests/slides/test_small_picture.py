"""Small pictures show the whole slide with its tissue, and stay small whatever is on it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.small_picture import LONGEST_PX, MOST_BYTES, OUTLINE, small_picture
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.slides.tissue.thumbnail import picture_plan


@pytest.mark.parametrize(("width", "height"), [(2048, 1024), (300, 1700), (40, 30)])
def test_a_picture_is_small_and_has_the_form_of_the_slide(
    tmp_path: Path, width: int, height: int
) -> None:
    """Also where every pixel differs from its neighbours; the border of tissue is green."""
    path = tmp_path / "noise.tif"
    write_coordinate_slide(path, width, height, tile=256 if width > 256 else 16, levels=(1,))
    cells = np.zeros((8, 8), np.bool_)
    cells[:, :4] = True
    slide = open_slide(path)
    try:
        data = small_picture(slide, TissueMask(cells, width, height))
        plain = small_picture(slide, None)
    finally:
        slide.close()
    assert max(len(data), len(plain)) <= MOST_BYTES
    image = Image.open(io.BytesIO(data))
    assert max(image.size) <= LONGEST_PX
    assert image.width / image.height == pytest.approx(width / height, rel=0.1)
    if width > LONGEST_PX:
        middle = np.asarray(image).astype(int)[:, image.width // 2 - 1 : image.width // 2 + 1]
        assert np.abs(middle.mean(axis=(0, 1)) - OUTLINE).max() < 60


def test_of_a_huge_level_a_part_is_read(tmp_path: Path) -> None:
    """A slide without small levels costs as much as one with them."""
    path = tmp_path / "slide.tif"
    write_coordinate_slide(path, 2048, 1024, tile=128, levels=(1,))
    slide = open_slide(path)
    try:
        plan = picture_plan(slide.info, 320, most_read_px=2**18)
        assert plan.stride == 3
        assert picture_plan(slide.info, 320).stride == 1
    finally:
        slide.close()
