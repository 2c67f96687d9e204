"""The table of a survey: one row a slide, as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from chunkdl.slides.slide import SlideInfo
from chunkdl.survey.surveyed_slide import SurveyedSlide
from chunkdl.system.kept_files import write_whole
from chunkdl.system.printing import printable

Cell = str | int | float | None


def _fact(ask: Callable[[SlideInfo], Cell]) -> Callable[[SurveyedSlide], Cell]:
    """Of the header; nothing where the slide could not be opened."""
    return lambda slide: None if slide.info is None else ask(slide.info)


COLUMNS: Mapping[str, Callable[[SurveyedSlide], Cell]] = {
    "patient": lambda slide: slide.patient,
    "slide": lambda slide: slide.path,
    "problem_kinds": lambda slide: "; ".join(problem.kind for problem in slide.problems),
    "problems": lambda slide: _plain(" | ".join(problem.text for problem in slide.problems)),
    "notes": lambda slide: _plain(" | ".join(slide.look.notes)),
    "file_bytes": lambda slide: slide.look.file_bytes,
    "format": lambda slide: _plain(slide.look.format),
    "compression": lambda slide: _plain(compression_of(slide)),
    "stored_as": lambda slide: _plain(slide.look.stored_as),
    "reader": _fact(lambda info: info.reader),
    "width_px": _fact(lambda info: info.levels[0].width),
    "height_px": _fact(lambda info: info.levels[0].height),
    "levels": _fact(lambda info: len(info.levels)),
    "downsamples": _fact(lambda info: " ".join(f"{level.downsample:.6g}" for level in info.levels)),
    "tile_width_px": _fact(lambda info: info.levels[0].tile_width),
    "tile_height_px": _fact(lambda info: info.levels[0].tile_height),
    "mpp_x_microns": lambda slide: slide.mpp and slide.mpp[0],
    "mpp_y_microns": lambda slide: slide.mpp and slide.mpp[1],
    "mpp_source": lambda slide: _plain(mpp_source_of(slide)),
    "objective_power": _fact(lambda info: info.magnification),
    "regions_read": lambda slide: slide.look.regions_read,
    "regions_unreadable": lambda slide: slide.look.regions_unreadable,
    "tissue_share": lambda slide: slide.tissue_share,
    "tissue_px": lambda slide: slide.look.tissue_px,
    "tissue_mm2": lambda slide: slide.tissue_mm2,
    "annotated_px": lambda slide: _areas(slide.look.annotated_px),
    "annotated_mm2": lambda slide: _areas(slide.annotated_mm2),
}
"""Name and content of each column; `docs/survey.md` says what they mean."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula."""


def write_table(file: Path, slides: Sequence[SurveyedSlide]) -> None:
    """Write the table, UTF-8 with one line of names; it appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for slide in slides:
        writer.writerow([_written(ask(slide)) for ask in COLUMNS.values()])
    write_whole(file, text.getvalue().encode())


def compression_of(slide: SurveyedSlide) -> str:
    """How the pixels of level 0 are compressed; empty where nobody knows."""
    return slide.look.stored_as.partition(",")[0]


def mpp_source_of(slide: SurveyedSlide) -> str:
    """Where the microns per pixel come from; empty where they are unknown."""
    if slide.given_mpp is not None:
        return "the dataset"
    return "" if slide.info is None else slide.info.mpp_source


def _written(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.9g}" if isinstance(cell, float) else printable(str(cell))


def _plain(text: str) -> str:
    """What files say of themselves, never a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _areas(areas: Mapping[str, float] | None) -> str | None:
    return (
        None
        if areas is None
        else json.dumps({name: float(f"{area:.9g}") for name, area in areas.items()})
    )
