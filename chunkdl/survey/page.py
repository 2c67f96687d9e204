"""The page of a survey: one HTML file that needs no other, no network and no script."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import get_args

from chunkdl.slides.small_picture import LONGEST_PX
from chunkdl.survey.look import Kind
from chunkdl.survey.page_template import CARD, PAGE, PICTURE
from chunkdl.survey.surveyed_slide import SurveyedSlide
from chunkdl.survey.table import compression_of
from chunkdl.system.kept_files import write_whole
from chunkdl.system.printing import printable

MOST_ROWS = 30
"""Of one table of the summary."""
UNKNOWN = "unknown"
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANINGS: Mapping[Kind, str] = {
    "not opened": "the file cannot be opened as a slide",
    "crash": "a process ended over it",
    "no answer": "it took longer than the limit",
    "not read": "a part of it cannot be read",
    "own code": "a function or an object of yours failed over it",
    "annotations": "its annotations cannot be used",
    "given mask": "the tissue mask that the dataset names for it cannot be used",
    "no tissue": "a stream would find no place with enough tissue",
    "resolution": "it cannot give the wished resolution",
}


def write_page(file: Path, name: str, slides: Sequence[SurveyedSlide]) -> None:
    """Write the page; it appears whole or not at all. It has about 8 KB a slide.

    Args:
        file: made, or replaced.
        name: of the dataset.
        slides: all of them; those with problems come first.

    Raises:
        OSError: it cannot be written.
    """
    bad = sorted((slide for slide in slides if slide.problems), key=_first_kind)
    good = [slide for slide in slides if not slide.problems]
    page = Template(PAGE).substitute(
        title=shown(name),
        tiles="".join(_tile(*tile) for tile in _tiles(slides)),
        problems=_problems(slides),
        tables="".join(_tables(slides)),
        longest=LONGEST_PX,
        bad=_section("Slides with problems", bad),
        good=_section("Slides without problems", good),
    )
    write_whole(file, page.encode())


def shown(text: str) -> str:
    """Text of files, for HTML: no character of it means anything there, or hides another."""
    visible = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in printable(text)
    )
    return html.escape(visible)


def counted(number: int, what: str) -> str:
    """Such as "1 level" or "3 levels"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def _first_kind(slide: SurveyedSlide) -> int:
    return min(KINDS.index(problem.kind) for problem in slide.problems)


# ---- The summary


def _tiles(slides: Sequence[SurveyedSlide]) -> Iterator[tuple[str, str]]:
    """Numbers and what they count."""
    yield f"{len(slides):,}", "slides"
    yield f"{len({slide.patient for slide in slides}):,}", "patients"
    yield f"{sum(bool(slide.problems) for slide in slides):,}", "slides with problems"
    areas = [slide.tissue_mm2 for slide in slides if slide.tissue_mm2 is not None]
    yield f"{sum(areas):,.1f} mm²", f"tissue of {len(areas):,} slides with known scale"
    size = sum(slide.look.file_bytes or 0 for slide in slides)
    yield f"{size / 1e9:,.1f} GB", "files"


def _tile(number: str, what: str) -> str:
    return f"<div class=tile><b>{number}</b><span>{what}</span></div>"


def _problems(slides: Sequence[SurveyedSlide]) -> str:
    counts = Counter(
        kind for slide in slides for kind in {problem.kind for problem in slide.problems}
    )
    if not counts:
        return "<p class=fine>No slide has a problem.</p>"
    rows = "".join(
        f"<tr><td>{kind}<td class=n>{counts[kind]:,}<td>{MEANINGS[kind]}"
        for kind in KINDS
        if counts[kind]
    )
    return f"<table class=problems><tr><th>Problem<th>Slides<th>Meaning{rows}</table>"


def _tables(slides: Sequence[SurveyedSlide]) -> Iterator[str]:
    opened = [slide for slide in slides if slide.info is not None]
    yield _histogram("Microns per pixel", map(mpp_bin, opened), by_name=True)
    yield _histogram("Format", (slide.look.format or UNKNOWN for slide in opened))
    yield _histogram("Compression", (compression_of(slide) or UNKNOWN for slide in opened))
    powers = (slide.info.magnification for slide in opened if slide.info is not None)
    yield _histogram("Objective", (UNKNOWN if power is None else f"{power:g}x" for power in powers))
    annotated = [slide.look.annotated_px for slide in slides if slide.look.annotated_px is not None]
    if annotated:
        yield _histogram("Annotated classes", (name for areas in annotated for name in areas))


def mpp_bin(slide: SurveyedSlide) -> str:
    """The bar of the histogram that a slide belongs to: steps of 0.05 below 1, then of 0.5."""
    if slide.mpp is None:
        return UNKNOWN
    mean = sum(slide.mpp) / 2
    step = 0.05 if mean < 1 else 0.5
    return f"{round(mean / step) * step:.2f}"


def _histogram(title: str, names: Iterable[str], *, by_name: bool = False) -> str:
    counts = Counter(names)
    rows = counts.most_common(MOST_ROWS)
    if by_name:
        rows.sort(key=lambda row: (row[0] == UNKNOWN, len(row[0]), row[0]))
    longest = max((count for _, count in rows), default=1)
    bars = "".join(
        f"<tr><td>{shown(name)}<td class=n>{count:,}"
        f'<td class=bar><i style="width:{100 * count / longest:.1f}%"></i>'
        for name, count in rows
    )
    more = len(counts) - len(rows)
    rest = f"<tr><td>and {more:,} more<td><td>" if more > 0 else ""
    return f"<div class=histogram><h3>{title}</h3><table>{bars}{rest}</table></div>"


# ---- The slides


def _section(title: str, slides: Sequence[SurveyedSlide]) -> str:
    if not slides:
        return ""
    cards = "".join(map(_card, slides))
    return f"<h2>{title} ({len(slides):,})</h2><div class=cards>{cards}</div>"


def _card(slide: SurveyedSlide) -> str:
    notes = slide.look.notes
    listed = "".join(f"<li>{shown(note)}" for note in notes)
    many = counted(len(notes), "note")
    return Template(CARD).substitute(
        picture=_picture(slide),
        name=shown(slide.path.rpartition("/")[2]),
        path=shown(slide.path),
        patient=shown(slide.patient),
        facts=" · ".join(shown(fact) for fact in _facts(slide)),
        problems="".join(
            f"<p class=problem><b>{problem.kind}</b> {shown(problem.text)}</p>"
            for problem in slide.problems
        ),
        notes=f"<details><summary>{many}</summary><ul>{listed}</ul></details>" if notes else "",
    )


def _picture(slide: SurveyedSlide) -> str:
    if not slide.look.picture:
        return "<div class=none>no picture</div>"
    return Template(PICTURE).substitute(data=base64.b64encode(slide.look.picture).decode())


def _facts(slide: SurveyedSlide) -> Iterator[str]:
    """In a few words each."""
    info, look = slide.info, slide.look
    if info is not None:
        first = info.levels[0]
        yield look.format or f"reader {info.reader}"
        yield f"{first.width:,} x {first.height:,} px"
        yield counted(len(info.levels), "level")
        yield compression_of(slide) or "compression unknown"
        yield "mpp unknown" if slide.mpp is None else f"{_mean(slide.mpp):.4g} mpp"
        if info.magnification is not None:
            yield f"{info.magnification:g}x"
    if look.tissue_px is not None:
        area = slide.tissue_mm2
        size = f"{look.tissue_px:,.0f} px" if area is None else f"{area:,.2f} mm²"
        yield f"tissue {size} ({slide.tissue_share or 0:.1%})"
    if look.annotated_px is not None:
        yield _classes(slide)


def _classes(slide: SurveyedSlide) -> str:
    areas, unit = slide.annotated_mm2, "mm²"
    if areas is None:
        areas, unit = slide.look.annotated_px or {}, "px"
    size: Callable[[float], str] = "{:,.3g}".format if unit == "mm²" else "{:,.0f}".format
    listed = ", ".join(f"{name} {size(area)} {unit}" for name, area in areas.items())
    return f"annotated: {listed or 'nothing'}"


def _mean(pair: tuple[float, float]) -> float:
    return sum(pair) / 2
