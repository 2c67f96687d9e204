"""Draws the pictures of ``augmentation.md``: ``python docs/augmentation_pictures.py``.

Needs the slides of the folder that ``CHUNKDL_SLIDES`` names, of which only those are shown whose
licence says that they may be passed on: ``CMU-1-Small-Region.svs`` (CC0) and
``OS-1-detail.ome.tif`` (free to distribute).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chunkdl import (
    Augment,
    Blur,
    ColourJitter,
    Cutout,
    Grey,
    HedJitter,
    HedShift,
    Jpeg,
    Macenko,
    Noise,
    Reinhard,
    ResizedCrop,
    Solarise,
    StainJitter,
    Symmetry,
    open_slide,
)
from chunkdl.slides.slide import Pixels

FOLDER = Path(__file__).parent / "pictures"
PATCH_PX = 224
GAP_PX, LINE_PX = 5, 15
NAMES_PX = 116
CMU, OS = "CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"
PLACES: Sequence[tuple[str, int, int]] = (
    *((CMU, 900, 1500), (CMU, 300, 2000), (CMU, 1500, 300), (OS, 400, 200)),
    (OS, 700, 800),
)
"""File and corner of each patch."""
NORMALISERS: Mapping[str, Macenko | Reinhard | None] = {
    "as it is": None,
    'Macenko("v3")': Macenko(),
    "Macenko(fast)": Macenko(fast=True),
    '"torchstain"': Macenko("torchstain"),
    'Reinhard("v3")': Reinhard(),
    "Reinhard(mask)": Reinhard(mask=True),
}
OPERATIONS: Mapping[str, Augment] = {
    "Symmetry": Augment(Symmetry()),
    "ResizedCrop": Augment(ResizedCrop(PATCH_PX, area=(0.3, 1.0))),
    "ColourJitter": Augment(ColourJitter(p=1)),
    "HedJitter(0.05)": Augment(HedJitter()),
    "HedJitter(0.2)": Augment(HedJitter(0.2)),
    "HedShift": Augment(HedShift(p=1)),
    "StainJitter": Augment(StainJitter(Macenko())),
    "Grey": Augment(Grey(p=0.5)),
    "Blur": Augment(Blur(p=1)),
    "Noise": Augment(Noise(p=1)),
    "Jpeg(5, 50)": Augment(Jpeg(5, 50, p=1)),
    "Solarise": Augment(Solarise(p=0.5)),
    "Cutout": Augment(Cutout(p=1)),
    "several": Augment(
        *(Symmetry(), ColourJitter(), HedJitter(), Blur(p=0.2), Jpeg(p=0.2), Cutout(p=0.3))
    ),
}
KEYS = 6


def patch_at(name: str, x: int, y: int) -> Pixels:
    """A patch of a slide, at level 0."""
    slide = open_slide(Path(os.environ["CHUNKDL_SLIDES"]) / name)
    try:
        pixels = np.empty((PATCH_PX, PATCH_PX, 3), np.uint8)
        slide.read_into(pixels, 0, x, y)
        return pixels
    finally:
        slide.close()


def sheet(
    rows: Mapping[str, Sequence[Pixels]], columns: Sequence[str], side_px: int, *, named: bool
) -> Image.Image:
    """Pictures in rows and columns, with the names of either."""
    font = ImageFont.load_default(12)
    left, top = (NAMES_PX if named else GAP_PX), (LINE_PX + GAP_PX if columns else GAP_PX)
    step = side_px + GAP_PX
    across = max(len(row) for row in rows.values())
    whole = Image.new("RGB", (left + across * step, top + len(rows) * step), "white")
    draw = ImageDraw.Draw(whole)
    for number, name in enumerate(columns):
        draw.text((left + number * step, 3), name, (30, 30, 30), font)
    for down, (name, row) in enumerate(rows.items()):
        if named:
            draw.text((GAP_PX, top + down * step + step // 2 - 10), name, (30, 30, 30), font)
        for number, pixels in enumerate(row):
            small = Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BOX)
            whole.paste(small, (left + number * step, top + down * step))
    return whole


def save(image: Image.Image, name: str) -> None:
    path = FOLDER / name
    image.save(path, quality=75)
    print(path.name, image.size, path.stat().st_size)


def main() -> None:
    patches = [patch_at(*place) for place in PLACES]
    stains = {
        str(number): [
            patch if normaliser is None else normaliser.normalised(patch)
            for normaliser in NORMALISERS.values()
        ]
        for number, patch in enumerate(patches)
    }
    save(sheet(stains, list(NORMALISERS), 124, named=False), "augmentation-stains.jpg")
    operations = {
        name: [augment.row(patches[0], key) for key in range(KEYS)]
        for name, augment in OPERATIONS.items()
    }
    save(sheet(operations, [], 86, named=True), "augmentation-operations.jpg")


if __name__ == "__main__":
    main()
