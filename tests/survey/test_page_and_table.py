"""The page and the table of a survey have every slide, and nothing in them means more than text."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chunkdl.slides.slide import Level, SlideInfo
from chunkdl.survey.look import Look, Problem
from chunkdl.survey.page import mpp_bin, shown, write_page
from chunkdl.survey.surveyed_slide import SurveyedSlide
from chunkdl.survey.table import COLUMNS, write_table
from chunkdl.system.printing import printable

MEAN = '<script>alert("1")</script>&\'\n\u202e'
"""Text that closes tags, quotes and lines, and turns what follows around."""
NOT_UTF8 = os.fsdecode(b"/slides/M\xfcller\n.svs")


def picture() -> bytes:
    """A JPEG."""
    written = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(written, "JPEG")
    return written.getvalue()


def info(mpp: tuple[float, float] | None = (0.5, 0.25), mean: str = MEAN) -> SlideInfo:
    """Facts of a slide of 1000 x 2000 pixels."""
    levels = (Level(1000, 2000, 1.0, 256, 128), Level(250, 500, 4.0, 256, 128))
    return SlideInfo("", "tiff", levels, mpp, mpp_source=f"={mean}", magnification=20.0)


def slides(mean: str = MEAN) -> list[SurveyedSlide]:
    """A good one, one without a scale, and one that could not be opened."""
    good = Look(
        info(mean=mean),
        10**9,
        f"Vendor {mean}",
        f"JPEG, {mean}",
        7,
        0,
        500_000.0,
        {f"tumor {mean}": 80_000.0},
        notes=(f"note {mean}",),
        picture=picture(),
    )
    no_scale = Look(info(None), tissue_px=2_000_000.0, annotated_px={"a": 4.0})
    bad = Look(problems=(Problem("not opened", f"why {mean}"),))
    return [
        SurveyedSlide(f"P {mean}", f"/slides/{mean}.svs", None, good),
        SurveyedSlide("2", NOT_UTF8, None, no_scale),
        SurveyedSlide("3", "/slides/bad.svs", None, bad),
    ]


class Page(HTMLParser):
    """What a page consists of, as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """One more element."""
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        """One more text."""
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of that kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(some: list[SurveyedSlide], folder: Path) -> Page:
    """The page of these slides."""
    write_page(folder / "survey.html", f"name {MEAN}", some)
    return Page((folder / "survey.html").read_text("utf-8"))


def test_the_page_has_every_slide_those_with_problems_first(tmp_path: Path) -> None:
    """With its picture, its facts and what is wrong with it."""
    page = page_of(slides(), tmp_path)
    assert page.text.index("bad.svs") < page.text.index("Slides without problems")
    for expected in (
        "1,000 x 2,000 px",
        "tissue 0.06 mm² (25.0%)",
        "tissue 2,000,000 px (100.0%)",
        "0.375 mpp",
        "mpp unknown",
        "20x",
        "annotated: a 4 px",
        "not opened",
    ):
        assert expected in page.text, expected
    (shown_picture,) = page.of("img")
    assert shown_picture["loading"] == "lazy"
    source = shown_picture["src"] or ""
    assert base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) == picture()


def test_nothing_of_a_file_is_more_than_text_on_the_page(tmp_path: Path) -> None:
    """No element and no attribute comes from it, no letter hides, and nothing is fetched."""
    page = page_of(slides(), tmp_path)
    plain = page_of(slides("plain"), tmp_path)
    assert [(tag, list(attributes)) for tag, attributes in page.tags] == [
        (tag, list(attributes)) for tag, attributes in plain.tags
    ]
    assert not page.of("script") + page.of("link") + page.of("iframe") + page.of("a")
    assert '<script>alert("1")</script>&\'\\n\\u202e.svs' in page.text
    assert "M\\udcfcller\\n.svs" in page.text
    sources = [value for _, attributes in page.tags for value in attributes.values()]
    assert not [value for value in sources if value and "://" in value]
    (policy,) = (meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


PIECES = ("<b>", "</p>", "<!--", "&lt;", "&#60", '"', "'")


@given(st.lists(st.sampled_from(PIECES) | st.characters()).map("".join))
def test_any_text_comes_out_of_the_page_as_it_is_shown(text: str) -> None:
    """Whatever it is, it is one text, all of whose letters can be seen."""
    page = Page(shown(text))
    assert page.tags == []
    assert page.text.isprintable()
    if text.isprintable():
        assert page.text == text


def test_the_table_has_a_row_a_slide_whatever_it_is_called(tmp_path: Path) -> None:
    """Names come back as they are; what files say of themselves is never a formula."""
    write_table(tmp_path / "survey.csv", slides())
    with (tmp_path / "survey.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == [printable(slide.path) for slide in slides()]
    assert list(rows[0]) == list(COLUMNS)
    good, no_scale, bad = rows
    assert good["patient"] == f"P {MEAN}"
    assert (good["width_px"], good["height_px"], good["levels"]) == ("1000", "2000", "2")
    assert (good["mpp_x_microns"], good["mpp_y_microns"]) == ("0.5", "0.25")
    assert float(good["tissue_mm2"]) == 0.0625
    assert float(good["tissue_share"]) == 0.25
    assert json.loads(good["annotated_mm2"]) == {f"tumor {MEAN}": 0.01}
    assert good["mpp_source"] == f"'={MEAN}"
    assert good["compression"] == "JPEG"
    assert (no_scale["tissue_px"], no_scale["tissue_mm2"]) == ("2000000", "")
    assert json.loads(no_scale["annotated_px"]) == {"a": 4.0}
    assert no_scale["annotated_mm2"] == ""
    assert (bad["problem_kinds"], bad["problems"]) == ("not opened", f"why {MEAN}")
    assert bad["width_px"] == bad["tissue_px"] == ""


def test_the_dataset_may_say_the_microns() -> None:
    """Then areas are by them, and the source says so."""
    slide = SurveyedSlide("1", "/a", (1.0, 1.0), Look(info(), tissue_px=1e6))
    assert slide.tissue_mm2 == 1.0
    assert COLUMNS["mpp_source"](slide) == "the dataset"
    assert mpp_bin(slide) == "1.00"
    assert mpp_bin(SurveyedSlide("1", "/a", (0.2513, 0.2509), Look(info()))) == "0.25"
    assert mpp_bin(SurveyedSlide("1", "/a", None, Look(info(None)))) == "unknown"
