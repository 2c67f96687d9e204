"""The public names of chunkdl: all there, in order, and free until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest

import chunkdl

REPOSITORY = Path(__file__).parents[1]


def test_the_list_of_names_has_each_once() -> None:
    """So that a merge does not double one; the linter sorts them, constants first."""
    assert len(chunkdl.__all__) == len(set(chunkdl.__all__))


def test_the_three_lists_of_names_are_one() -> None:
    """For people (`__all__`), for type checkers, and for the import at run time."""
    tree = ast.parse(Path(chunkdl.__file__).read_text())
    checked = {
        alias.name: (node.module or "").removeprefix("chunkdl.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert checked == chunkdl._HOMES
    assert set(checked) == set(chunkdl.__all__)


@pytest.mark.parametrize("name", chunkdl.__all__)
def test_every_name_resolves_to_what_it_is_called(name: str) -> None:
    """And is offered by completion."""
    value = getattr(chunkdl, name)
    # Constants are members of an enumeration.
    assert (value.name if isinstance(value, Enum) else value.__name__) == name
    assert name in dir(chunkdl)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """As of every module."""
    with pytest.raises(AttributeError, match="no attribute 'LightDl'"):
        chunkdl.LightDl  # noqa: B018


HEAVY = ("torch", "zmq", "openslide", "tifffile", "imagecodecs", "skimage", "numpy")


def imported_by(program: str) -> set[str]:
    """Which of the heavy libraries a fresh Python has imported after a program."""
    probe = f"{program}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_chunkdl_imports_nothing_heavy() -> None:
    """Tools that only ask for the version, and workers, start at once."""
    assert imported_by("import chunkdl; chunkdl.__version__") == set()


def test_opening_slides_needs_neither_torch_nor_zmq() -> None:
    """A process that only reads slides pays for nothing else."""
    program = "from chunkdl import Dataset, Otsu, Record, open_slide"
    assert imported_by(program).isdisjoint({"torch", "zmq"})


def test_every_public_name_is_on_the_page_of_names() -> None:
    """Once; the page is made from the docstrings."""
    page = (REPOSITORY / "docs" / "reference.md").read_text()
    named = [line.removeprefix("::: chunkdl.") for line in page.splitlines() if line[:3] == ":::"]
    assert sorted(named) == sorted(chunkdl.__all__)
