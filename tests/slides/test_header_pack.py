"""The facts of many slides lie in one file; nothing in it is ever out of date."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chunkdl.slides.header_facts import header_facts, pack_known
from chunkdl.slides.header_pack import MOST_PACKS, PACKED_FROM, HeaderPack
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.synthetic.writing import write_coordinate_slide


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Enough slides for a pack; one of them is none."""
    (tmp_path / "slides").mkdir()
    first = tmp_path / "slides" / "0.tif"
    write_coordinate_slide(first, 64, 64, tile=64, levels=(1,))
    found = [str(first)]
    for number in range(1, PACKED_FROM):
        found.append(str(tmp_path / "slides" / f"{number}.tif"))
        Path(found[-1]).write_bytes(first.read_bytes())
    Path(found[7]).write_bytes(b"")
    return found


OPENS = """
import sys
from pathlib import Path
from chunkdl.slides.header_facts import header_facts

opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
names = Path(sys.argv[1]).read_text().splitlines()
header_facts(names, "auto", Path(sys.argv[2]))
for suffix in (".tif", ".header", ".headers"):
    print(sum(name.endswith(suffix) for name in opened))
"""


def opens(names: list[str], folder: Path) -> list[int]:
    """How many slides, files of one slide, and packs a new process opens for their facts."""
    listed = folder.parent / "names"
    listed.write_text("\n".join(names))
    command = [sys.executable, "-c", OPENS, str(listed), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return list(map(int, done.stdout.split()))


def test_a_second_start_opens_one_file_for_all_slides(names: list[str], tmp_path: Path) -> None:
    """And what could not be opened before; the facts are the same."""
    folder = tmp_path / "cache"
    first = header_facts(names, "auto", folder)
    slides, alone, packs = opens(names, folder)
    assert (alone, packs) == (1, 1)  # of the one that is no slide
    assert slides <= 5
    assert header_facts(names, "auto", folder)[:7] == first[:7]
    for file in folder.glob("*.header"):
        file.unlink()
    assert opens(names, folder)[1:] == [1, 1]


def test_a_changed_slide_is_read_again_and_packed(names: list[str], tmp_path: Path) -> None:
    """The others stay known."""
    folder = tmp_path / "cache"
    header_facts(names, "auto", folder)
    write_coordinate_slide(names[3], 128, 64, tile=64, levels=(1,))
    facts = header_facts(names, "auto", folder)
    assert [fact.levels[0].width for fact in facts[:5] if isinstance(fact, SlideInfo)] == [
        *(64, 64, 64, 128),
        64,
    ]
    assert opens(names, folder)[1:] == [1, 1]


def test_what_is_known_is_packed_without_opening_a_slide(names: list[str], tmp_path: Path) -> None:
    """As after a survey, whose processes have kept the facts one by one."""
    folder = tmp_path / "cache"
    header_facts(names[:50], "auto", folder)
    (kept,) = {len(list(folder.glob("*.header")))}
    assert not list(folder.glob("*.headers"))
    pack_known(names, "auto", folder)
    assert len(list(folder.glob("*.header"))) == kept == 49
    assert len(list(folder.glob("*.headers"))) == 1


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: b"", lambda data: data[:9]])
def test_a_damaged_pack_is_made_again(
    names: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: object
) -> None:
    """With a warning."""
    folder = tmp_path / "cache"
    first = header_facts(names, "auto", folder)
    (pack,) = folder.glob("*.headers")
    whole = pack.read_bytes()
    assert callable(harm)
    pack.write_bytes(harm(whole))
    with caplog.at_level(logging.WARNING, "chunkdl"):
        assert header_facts(names, "auto", folder)[:7] == first[:7]
    assert [f"{pack} cannot be used" in text for text in caplog.messages] == [True]
    header_facts(names, "auto", folder)
    assert len(pack.read_bytes()) == len(whole)


def test_old_packs_make_way(tmp_path: Path) -> None:
    """Each list of slides has its own."""
    for number in range(MOST_PACKS + 3):
        pack = HeaderPack(tmp_path, [f"{number}-{k}" for k in range(PACKED_FROM)], [])
        pack.write({b"key": b"facts"})
        for file in tmp_path.glob("*.headers"):
            if os.stat(file).st_mtime_ns % 10**9:
                os.utime(file, ns=(number * 10**9, number * 10**9))
    assert len(list(tmp_path.glob("*.headers"))) == MOST_PACKS
    assert pack.read() == {b"key": b"facts"}
