"""Draws the picture of ``survey.md``: ``python docs/survey_pictures.py``.

Needs the slides of the folder that ``CHUNKDL_SLIDES`` names, of which those are shown that may be
passed on. It has the pictures and texts of the page, and is no photograph of a browser.
"""

from __future__ import annotations

import io
import os
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chunkdl import Dataset, Patient, Record, Survey, SurveyedSlide, write_tissue_slide
from chunkdl.slides.small_picture import LONGEST_PX
from chunkdl.survey.page import counted
from chunkdl.survey.table import compression_of

FILE = Path(__file__).parent / "pictures" / "survey.png"
FREE = ("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif")
CARD_WIDTH, CARD_HEIGHT, GAP_PX, LINE_PX, TEXT_PX = 430, 180, 10, 15, 12
LETTERS = 42
BLACK, GREY, RED = (34, 34, 34), (85, 85, 85), (164, 0, 0)


def surveyed(folder: Path) -> Survey:
    """A survey of two real slides and four made ones."""
    write_tissue_slide(folder / "good.tif", 4096, 3072, seed=3)
    write_tissue_slide(folder / "no-small-level.tif", 4096, 3072, seed=4, levels=(1,))
    write_tissue_slide(folder / "empty-mask.tif", 2048, 1536, seed=5)
    whole = (folder / "good.tif").read_bytes()
    # Zeros where parts did not arrive, as downloads in pieces leave them.
    first, last = len(whole) // 4, len(whole) // 2
    damaged = whole[:first] + bytes(last - first) + whole[last:]
    (folder / "zeros-within.tif").write_bytes(damaged)
    names = ("good.tif", "no-small-level.tif", "empty-mask.tif", "zeros-within.tif")
    glass = {"tissue_mask": np.zeros((3, 4), np.bool_)}
    records = [Record(folder, name, glass if name == "empty-mask.tif" else {}) for name in names]
    records += [Record(os.environ["CHUNKDL_SLIDES"], name) for name in FREE]
    patients = [Patient(number, {"slide": record}) for number, record in enumerate(records)]
    return Dataset("picture", patients).survey(mask_cache=folder / "cache")


def card(slide: SurveyedSlide) -> Image.Image:
    """One slide as on the page."""
    image = Image.new("RGB", (CARD_WIDTH, CARD_HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, CARD_WIDTH - 1, CARD_HEIGHT - 1), outline=(221, 221, 221))
    if slide.look.picture:
        image.paste(Image.open(io.BytesIO(slide.look.picture)), (GAP_PX, GAP_PX))
    lines = [(os.path.basename(slide.path), BLACK)]
    for problem in slide.problems:
        text = f"{problem.kind}: {problem.text.partition(' [')[0]}"
        lines += [(line, RED) for line in textwrap.wrap(text, LETTERS)[:5]]
    if slide.info is not None:
        first = slide.info.levels[0]
        facts = [
            slide.look.format,
            f"{first.width:,} x {first.height:,} px",
            counted(len(slide.info.levels), "level"),
            compression_of(slide),
            "mpp unknown" if slide.mpp is None else f"{sum(slide.mpp) / 2:.4g} mpp",
        ]
        if slide.tissue_mm2 is not None:
            facts.append(f"tissue {slide.tissue_mm2:,.2f} sq mm ({slide.tissue_share or 0:.1%})")
        lines += [(line, GREY) for line in textwrap.wrap(" · ".join(facts), LETTERS)]
    font = ImageFont.load_default(TEXT_PX)
    for number, (line, colour) in enumerate(lines):
        at = (LONGEST_PX + 2 * GAP_PX, GAP_PX + number * LINE_PX)
        draw.text(at, line, fill=colour, font=font)
    return image


def main() -> None:
    """Draw it."""
    with tempfile.TemporaryDirectory() as folder:
        survey = surveyed(Path(folder))
    slides = sorted(survey.slides, key=lambda slide: not slide.problems)
    rows = -(-len(slides) // 2)
    size = (2 * CARD_WIDTH + GAP_PX, rows * (CARD_HEIGHT + GAP_PX) - GAP_PX)
    whole = Image.new("RGB", size, "white")
    for number, slide in enumerate(slides):
        row, column = divmod(number, 2)
        at = (column * (CARD_WIDTH + GAP_PX), row * (CARD_HEIGHT + GAP_PX))
        whole.paste(card(slide), at)
    whole.save(FILE)


if __name__ == "__main__":
    main()
