"""What `chunkdl inspect --structure` says of every real slide, word for word.

`structures.txt` holds it; a change there is to be looked at, and not only written down.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chunkdl.commands.main import main

pytestmark = pytest.mark.slides

EXPECTED = (Path(__file__).parent / "structures.txt").read_text(encoding="utf-8")
OF_SLIDE = {part.partition(": ")[0]: part.strip() for part in EXPECTED.split("\n\n")}
NO_SLIDES = {"README.md", "annotations", "regions"}


@pytest.mark.parametrize("name", OF_SLIDE)
def test_the_structure_of_a_slide_is_the_one_that_is_known(
    name: str, slides_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every page, its role and why; every slide, its levels, microns per pixel and notes."""
    assert main(["inspect", "--structure", str(slides_folder / name)]) == 0
    said = capsys.readouterr().out.replace(f"{slides_folder}/", "")
    assert said.strip() == OF_SLIDE[name]


def test_no_slide_is_left_out(slides_folder: Path) -> None:
    """A slide that comes into the folder gets its structure into the test."""
    assert {one.name for one in slides_folder.iterdir()} - NO_SLIDES == OF_SLIDE.keys()
