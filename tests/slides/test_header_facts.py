"""What headers say is read once, and is never what a file said before it was replaced."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chunkdl.dataset.patients import Dataset
from chunkdl.errors import SlideError
from chunkdl.slides import header_facts as module
from chunkdl.slides.header_facts import HeaderFacts, header_facts
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.synthetic.writing import write_coordinate_slide


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where facts are kept."""
    return tmp_path / "cache" / "masks"


@pytest.fixture
def slide(tmp_path: Path) -> str:
    """A tiny slide at 0.5 microns per pixel."""
    path = tmp_path / "slide.tif"
    write_coordinate_slide(path, 256, 256, tile=128, levels=(1,))
    return str(path)


def facts_of(name: str, folder: Path, reader: str = "auto") -> HeaderFacts:
    """The facts of one slide."""
    (facts,) = header_facts([name], reader, folder)
    return facts


def info_of(name: str, folder: Path) -> SlideInfo:
    """The facts of a slide that can be opened."""
    facts = facts_of(name, folder)
    assert isinstance(facts, SlideInfo), facts
    return facts


def overwrite(path: str, content: bytes) -> None:
    """Another content of the same size and time, so that nobody can see it but by reading it."""
    before = os.stat(path)
    assert len(content) == before.st_size
    Path(path).write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_known_facts_cost_no_look_into_the_slide(slide: str, folder: Path) -> None:
    """They are what the slide said, also after its content could say nothing any more."""
    first = facts_of(slide, folder)
    opened = open_slide(slide)
    assert first == opened.info
    opened.close()
    overwrite(slide, bytes(os.path.getsize(slide)))
    assert facts_of(slide, folder) == first


def test_a_file_that_was_replaced_is_looked_at_again(slide: str, folder: Path) -> None:
    """Another size, or the same size at another time."""
    assert info_of(slide, folder).levels[0].width == 256
    write_coordinate_slide(slide, 384, 256, tile=128, levels=(1,), compression=None)
    assert info_of(slide, folder).levels[0].width == 384
    size, changed = os.path.getsize(slide), os.stat(slide).st_mtime_ns
    write_coordinate_slide(slide, 256, 384, tile=128, levels=(1,), compression=None)
    assert os.path.getsize(slide) == size
    os.utime(slide, ns=(changed, changed + 1))
    assert info_of(slide, folder).levels[0].width == 256


def test_another_reader_and_another_image_have_facts_of_their_own(slide: str, folder: Path) -> None:
    """The name says what is asked for, not the file alone."""
    assert info_of(slide, folder).reader == "tiff"
    by_name = facts_of(slide, folder, "openslide")
    assert isinstance(by_name, SlideError) or by_name.reader == "openslide"
    assert isinstance(facts_of(f"{slide}#image=1", folder), SlideError)


def test_links_to_one_file_share_its_facts_and_keep_their_names(slide: str, folder: Path) -> None:
    """In the order in which they were asked for."""
    links = [f"{slide}-{number}.tif" for number in range(40)]
    for link in links:
        os.symlink(slide, link)
    facts = header_facts(links, "auto", folder)
    assert [fact.path for fact in facts if isinstance(fact, SlideInfo)] == links
    assert len(list(folder.iterdir())) == 1


def test_that_a_slide_cannot_be_opened_is_not_remembered(slide: str, folder: Path) -> None:
    """It may come back, on a file system that forgot to tell."""
    good = Path(slide).read_bytes()
    overwrite(slide, bytes(len(good)))
    assert isinstance(facts_of(slide, folder), SlideError)
    overwrite(slide, good)
    assert isinstance(facts_of(slide, folder), SlideInfo)
    missing = facts_of("/nowhere/at-all.svs", folder)
    assert isinstance(missing, SlideError)
    assert missing.slide == "/nowhere/at-all.svs"


@pytest.mark.parametrize("harm", ["cut", "turned", "empty", "huge", "foreign"])
def test_facts_that_cannot_be_trusted_are_made_anew(
    slide: str, folder: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and right again for the next run."""
    first = facts_of(slide, folder)
    (file,) = folder.iterdir()
    kept = file.read_bytes()
    other = os.path.join(os.path.dirname(slide), "other.tif")
    write_coordinate_slide(other, 384, 256, tile=128, levels=(1,))
    facts_of(other, folder / "other")
    (foreign,) = (folder / "other").iterdir()
    harmed = {
        "cut": kept[:-1],
        "turned": kept[:-1] + bytes([kept[-1] ^ 1]),
        "empty": b"",
        "huge": kept + bytes(2**20),
        "foreign": foreign.read_bytes(),
    }
    file.write_bytes(harmed[harm])
    with caplog.at_level(logging.WARNING, "chunkdl"):
        assert facts_of(slide, folder) == first
    assert [record.getMessage().split(" cannot be ")[0] for record in caplog.records] == [
        f"the kept header facts {file}"
    ]
    assert file.read_bytes() == kept


def test_a_folder_that_cannot_be_used_costs_one_warning(
    slide: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The facts are right all the same."""
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING, "chunkdl"):
        facts = header_facts([slide] * 5, "auto", tmp_path / "file" / "masks")
    assert [isinstance(fact, SlideInfo) for fact in facts] == [True] * 5
    (told,) = caplog.messages
    assert told.startswith(f"header facts cannot be kept in {tmp_path}/file/masks (")


def test_a_file_name_that_is_no_utf8_has_facts(slide: str, folder: Path) -> None:
    """Its path comes back as Python holds it."""
    name = os.fsdecode(os.fsencode(slide)[:-4] + b"-M\xfcller.tif")
    os.rename(slide, name)
    assert info_of(name, folder).path == name
    assert info_of(name, folder).path == name


@pytest.mark.slides
def test_the_facts_of_real_slides_are_those_of_their_readers(
    slides_folder: Path, folder: Path
) -> None:
    """From the slide and from disk alike."""
    names = [patient.slides[0].path for patient in Dataset.from_slides(slides_folder)]
    first = header_facts(names, "auto", folder)
    again = header_facts(names, "auto", folder)
    for name, fact, second in zip(names, first, again, strict=True):
        if isinstance(fact, SlideInfo):
            slide = open_slide(name)
            assert fact == second == slide.info
            slide.close()
    assert sum(isinstance(fact, SlideInfo) for fact in first) >= len(names) - 1


@pytest.mark.slides
def test_a_dicom_slide_is_looked_at_again_when_another_of_its_files_changes(
    slides_folder: Path, folder: Path, tmp_path: Path
) -> None:
    """Its levels are in several files."""
    copy = tmp_path / "dicom"
    shutil.copytree(slides_folder / "endometrium-dicom", copy)
    name = str(copy / "level-0.dcm")
    assert len(info_of(name, folder).levels) == 3
    os.unlink(copy / "level-2.dcm")
    assert len(info_of(name, folder).levels) == 2


HANGING = """
import signal, sys, threading
from chunkdl.slides import header_facts

signal.signal(signal.SIGINT, signal.default_int_handler)
header_facts.SILENCE_S = 0.1

def hangs(*arguments):
    print("hangs", flush=True)
    threading.Event().wait()

header_facts.open_slide = hangs
try:
    header_facts.header_facts(sys.argv[1:-1], "auto", header_facts.Path(sys.argv[-1]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
"""A process whose slides lie on a file server that does not answer."""


def test_the_wait_for_a_file_server_is_told_and_ends_with_ctrl_c(slide: str, folder: Path) -> None:
    """The process ends too, though a thread never comes back."""
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, slide, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "hangs\n"
            assert f"Waiting for {slide}" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert process.stdout.readline() == "interrupted\n"
        finally:
            process.kill()


def test_the_threads_that_look_are_gone_and_mistakes_of_ours_are_raised(
    slide: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer keeps its place; what is not an answer is not lost in a thread."""
    names = [f"{slide}.gone", slide] * 40
    facts = header_facts(names, "auto", folder)
    assert [isinstance(fact, SlideInfo) for fact in facts] == [False, True] * 40
    assert not [thread for thread in threading.enumerate() if "chunkdl-headers" in thread.name]

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "open_slide", broken)
    with pytest.raises(ZeroDivisionError):
        header_facts([slide], "auto", folder / "other")
