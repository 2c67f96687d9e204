"""The benchmark of formats reads the same pixels with both programs and says what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks.formats import BEGIN, END, main, write_between_marks
from chunkdl.slides.synthetic.writing import write_tissue_slide


def test_a_run_gives_one_line_for_each_slide_and_names_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slide that both read, with equal pixels, and one of 16 bits."""
    folder = tmp_path / "slides"
    folder.mkdir()
    write_tissue_slide(folder / "tissue.tif", 1500, 1100, seed=5, levels=(1, 4))
    deep = np.zeros((300, 300), np.uint16)
    tifffile.imwrite(folder / "deep.tif", deep, tile=(256, 256), photometric="minisblack")
    monkeypatch.setenv("CHUNKDL_SLIDES", str(folder))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nbehind\n")
    main(["--windows", "1", "--repetitions", "1", "--write", str(page)])
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("| `tissue.tif`"))
    name, format_name, reader, *_, difference = (cell.strip() for cell in line.split("|")[1:-1])
    assert (name, format_name, reader) == ("`tissue.tif`", "TIFF", "tiff")
    assert int(difference) <= 2
    assert "- `deep.tif` is refused: its samples have 16 bits" in printed
    assert str(folder) not in printed
    assert page.read_text() == f"before\n{BEGIN}\n\n{printed.rstrip()}\n\n{END}\nbehind\n"


def test_a_page_without_the_marks_is_left_as_it_is(tmp_path: Path) -> None:
    """An error says which lines it needs."""
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(ValueError, match="needs the lines"):
        write_between_marks(page, "table")
    assert page.read_text() == "text\n"
