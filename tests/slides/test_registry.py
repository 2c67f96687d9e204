"""Which reader opens what, and what a slide's path looks like."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.readers.registry import READERS, open_slide
from chunkdl.slides.slide import PixelRule, Slide
from tests.slides.dicom_files import write_dicom


def test_auto_takes_the_direct_reader_where_it_can(
    tissue_slide: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so in the log."""
    with caplog.at_level(logging.INFO), closing(open_slide(tissue_slide)) as slide:
        assert slide.info.reader == "tiff"
    assert f"slide {tissue_slide}: reader tiff" in caplog.text


def test_auto_falls_back_to_openslide_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A Trestle file, whose tiles overlap, is for OpenSlide."""
    path = tmp_path / "trestle.tif"
    tifffile.imwrite(
        path,
        np.full((300, 300, 3), 255, np.uint8),
        tile=(256, 256),
        photometric="rgb",
        software="MedScan",
        metadata=None,
    )
    with caplog.at_level(logging.INFO), closing(open_slide(path)) as slide:
        assert slide.info.reader == "openslide"
    assert "reader openslide" in caplog.text
    assert "it is a Trestle TIFF file" in caplog.text


@pytest.mark.parametrize("name", ["tiff", "openslide"])
def test_every_reader_is_a_slide_and_says_its_name(name: str, tissue_slide: Path) -> None:
    """The protocol holds for each of them."""
    with closing(open_slide(tissue_slide, name)) as slide:
        assert isinstance(slide, Slide)
        assert slide.info.reader == name
        assert slide.info.path == str(tissue_slide)
        assert slide.info.background == (255, 255, 255)


def test_an_unknown_reader_names_the_known_ones(tissue_slide: Path) -> None:
    """It is a mistake in the configuration."""
    with pytest.raises(ConfigError, match="'auto' or one of dicom, tiff, openslide"):
        open_slide(tissue_slide, "bioformats")


def test_when_all_refuse_the_error_has_both_reasons(tmp_path: Path) -> None:
    """One error for the file, with what each reader said."""
    path = tmp_path / "text.svs"
    path.write_text("no slide")
    with pytest.raises(SlideError, match=r"TIFF.*openslide") as caught:
        open_slide(path)
    assert caught.value.slide == str(path)


@pytest.mark.parametrize("reader", ["auto", *READERS])
def test_a_file_that_is_not_there_is_said_to_be_missing(reader: str, tmp_path: Path) -> None:
    """And not to be damaged."""
    with pytest.raises(SlideError, match="no such file"):
        open_slide(tmp_path / "gone.svs", reader)


def test_a_folder_without_dicom_files_is_no_slide(tmp_path: Path) -> None:
    """Neither by its path nor when opened."""
    with pytest.raises(SlideError, match=r"without \.dcm files"):
        open_slide(tmp_path)


@pytest.mark.parametrize("reader", ["auto", "dicom", "openslide"])
def test_channels_that_a_reader_cannot_choose_are_refused(
    tmp_path: Path, tissue_slide: Path, reader: str
) -> None:
    """Or one stream would have slides with the channels that were asked for and others without."""
    picture = np.full((256, 256, 3), (10, 20, 30), np.uint8)
    path = tissue_slide if reader == "openslide" else write_dicom(tmp_path / "a.dcm", picture)
    for channels in ((2,), (2, 1, 0), (0, 1, 7)):
        with pytest.raises(SlideError, match="gives red, green and blue as they are"):
            open_slide(path, reader, PixelRule(channels=channels))
    open_slide(path, reader, PixelRule(channels=(0, 1, 2))).close()
