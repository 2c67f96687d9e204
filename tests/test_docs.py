"""What README and pages say runs, and what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from chunkdl import errors
from chunkdl.slides.synthetic.writing import write_tissue_slide

REPOSITORY = Path(__file__).parents[1]
PAGES = {
    page.relative_to(REPOSITORY).as_posix(): page.read_text()
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
}
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the pages call ``slides``."""
    folder = tmp_path_factory.mktemp("pages") / "slides"
    folder.mkdir()
    for seed, name in enumerate(("one", "two")):
        write_tissue_slide(folder / f"{name}.tif", 1536, 1536, seed=seed)
    return folder


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if PYTHON.search(text)])
def test_the_code_of_a_page_runs(
    page: str, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks of a page, in order, one after the other as a reader would type them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slides").symlink_to(slides)
    # As typed into a program: classes belong to the main module.
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in PYTHON.finditer(PAGES[page]):
        line = PAGES[page].count("\n", 0, block.start(1))
        code = compile("\n" * line + block[1], str(REPOSITORY / page), "exec")
        exec(code, names)


def test_every_link_leads_to_a_file() -> None:
    """No page links to a file that is not there."""
    broken = [
        f"{page}: {link}"
        for page, text in PAGES.items()
        for link in LINK.findall(text)
        if not link.startswith(("http", "#"))
        and not (REPOSITORY / page).parent.joinpath(link.partition("#")[0]).exists()
    ]
    assert broken == []


def test_every_source_file_that_a_page_names_is_there() -> None:
    """Pages that lead through the source do not lead into the void."""
    named = re.compile(r"`((?:chunkdl|workers|tests|docs|examples|benchmarks)/[\w./-]+)`")
    missing = [
        f"{page}: {name}"
        for page, text in PAGES.items()
        for name in named.findall(text)
        if not (REPOSITORY / name).exists()
    ]
    assert missing == []


def test_the_page_of_errors_has_the_tree_of_the_code() -> None:
    """The tree is that of `chunkdl.errors`, and every error says what to do."""
    page = PAGES["docs/errors.md"]
    tree = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    lines = [line.removeprefix("    ") for line in tree.splitlines()]
    assert "\n".join(lines) in page

    classes = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ChunkdlError)
    }
    explained = set(re.findall(r"^\|`(\w+)`\|", page, re.MULTILINE))
    # WorkerError is only ever raised as one of its two kinds.
    assert explained == classes - {"ChunkdlError", "WorkerError"}


def test_every_page_is_in_the_navigation() -> None:
    """A page that nobody finds is not written in vain; decisions are added by their folder."""
    listed = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    lost = [page for page in pages if page not in listed and not page.startswith("decisions/")]
    assert lost == []
