"""Processes of chunkdl import what the training does, and nothing from where it happens to run."""

from __future__ import annotations

import json
import multiprocessing.spawn
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset, LightDL
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import ConfigError
from chunkdl.transport.child_imports import Imports
from tests.test_architecture import REPOSITORY, ROOTS

HIDING = (
    *("random", "logging", "select", "struct", "socket", "numpy", "zmq", "sitecustomize"),
    *("usercustomize", "resource", "chunkdl_workers", "chunkdl", "json", "os"),
    *("tifffile", "imagecodecs"),  # imported when the first slide is opened
)
"""Names of modules that a working folder may have by chance."""
TRAIN = """
import json, os, sys
sys.modules["torch"] = None
from chunkdl import Dataset, LightDL
out = sys.stdout
{more}
paths, arguments = json.loads(os.environ["PATHS"]), json.loads(os.environ["STREAM"])
with LightDL(Dataset.from_slides(paths), tissue="none", {given}**arguments) as loader:
    for _ in range(2):
        batch = loader.next_batch(60)
    print("batch", batch.number, batch["image"].max() < 0, file=out, flush=True)
"""
"""As if torch were not installed: its import takes as long as all of the rest."""
OWN = """
def negative(pixels):
    import {also}
    return -1.0 - pixels.astype("float32")
"""


@pytest.fixture
def environment(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> dict[str, str]:
    """For a training: its slides, its stream, and where the packages are."""
    paths = [record.path for patient in coordinate_dataset for record in patient.slides]
    own = {"num_loaders": 1, "num_collectors": 1, "arrays": "numpy"}
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
        "PATHS": json.dumps(paths),
        "STREAM": json.dumps({**small_stream, **own}),
    }


def train(
    words: Sequence[str], folder: Path, environment: dict[str, str], **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a training in a folder."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        **more,
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder in which every import is a mistake."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in HIDING:
        (folder / f"{name}.py").write_text("raise RuntimeError(f'{__file__} was imported')\n")
    return folder


@pytest.mark.parametrize("safe", ["", "1"], ids=["", "PYTHONSAFEPATH"])
def test_nothing_is_imported_from_the_working_folder(
    hostile: Path, environment: dict[str, str], tmp_path: Path, safe: str
) -> None:
    """A script of another folder is run there, with a module beside it."""
    project = tmp_path / "project: one"
    project.mkdir()
    (project / "own_rows.py").write_text(OWN.format(also="math"))
    more = f"sys.path.append({str(project)!r}); from own_rows import negative"
    (project / "train.py").write_text(TRAIN.format(more=more, given="tfms=negative, "))
    done = train([f"{project}/train.py"], hostile, {**environment, "PYTHONSAFEPATH": safe})
    assert done.stdout == "batch 1 True\n", done.stderr


def test_a_notebook_in_a_folder_with_such_names_works(
    hostile: Path, environment: dict[str, str]
) -> None:
    """Its kernel has the folder first on its path, put there when Python was up."""
    more = "import tifffile, imagecodecs; sys.path.insert(0, ''); sys.modules.pop('resource', None)"
    program = TRAIN.format(more=more, given="")
    environment["PYTHONSAFEPATH"] = "1"
    (hostile / "sitecustomize.py").unlink()
    done = train(["-c", program], hostile, environment)
    assert done.stdout == "batch 1 False\n", done.stderr


READERS = ("openslide", "tifffile", "pydicom", "imagecodecs", "chunkdl.slides.readers.tiff")
OF_SLIDES = (*READERS, "PIL", "skimage", "chunkdl.slides.readers", "chunkdl.slides.tissue.mask")
OF_USERS = ("torch", "chunkdl.patches.hooks", "chunkdl.patches.seeded_code", "cloudpickle")
OF_TABLES = ("csv", "pyarrow", "pandas", "chunkdl.dataset.tables", "chunkdl.dataset.patients")


@pytest.mark.parametrize(
    ("program", "needless"),
    [
        ("coordinator", (*OF_SLIDES, *OF_USERS, *OF_TABLES)),
        ("collector", (*OF_SLIDES, *OF_USERS, *OF_TABLES, "subprocess", "multiprocessing", "zmq")),
        ("loader", (*READERS, *OF_USERS, *OF_TABLES, "skimage", "subprocess", "zmq")),
    ],
)
def test_a_worker_of_crops_imports_only_what_it_needs(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    program: str,
    needless: tuple[str, ...],
) -> None:
    """Also for what it is told of its stream: imports are nearly all of the time of a start."""
    arguments = Arguments(**{**small_stream, "num_loaders": 1})
    config = configure(coordinate_dataset, arguments)
    looks = (
        f"import sys, pickle, chunkdl_workers.{program} as _; "
        "pickle.load(sys.stdin.buffer); print(*sys.modules)"
    )
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, ROOTS))}
    done = subprocess.run(
        [sys.executable, "-c", looks],
        env=own,
        input=pickle.dumps(config),
        capture_output=True,
        check=True,
        timeout=100,
    )
    imported = done.stdout.decode().split()
    assert f"chunkdl_workers.{program}" in imported
    found = [
        name
        for name in imported
        if any(name == one or name.startswith(f"{one}.") for one in needless)
    ]
    assert found == []


@pytest.mark.parametrize("how", ["script", "-m", "-c"])
def test_modules_of_the_user_are_found_where_the_training_found_them(
    environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    """Beside the script; in the working folder, where Python was run so; by their own names, also
    where these are names of the standard library.
    """
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "colorsys.py").write_text(OWN.format(also="statistics"))
    (tmp_path / "statistics.py").write_text("value = 1\n")
    program = TRAIN.format(
        more="import statistics; from colorsys import negative; assert statistics.value == 1",
        given="tfms=negative, ",
    )
    (package / "train.py").write_text(program)
    (tmp_path / "train.py").write_text(program)
    words = {"script": ["train.py"], "-m": ["-m", "mine.train"], "-c": ["-c", program]}[how]
    done = train(words, tmp_path, environment)
    assert done.stdout == "batch 1 True\n", done.stderr


def test_a_module_that_imports_chunkdl_brings_no_torch_to_the_processes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """They make no tensors, and it would be two seconds for each of them."""
    (tmp_path / "rows.py").write_text(
        "import sys\nfrom chunkdl import LightDL\n"
        "def negative(pixels):\n"
        "    return (-1.0 if 'torch' not in sys.modules else 1.0) + 0 * pixels.astype('float32')\n"
    )
    program = TRAIN.replace('sys.modules["torch"] = None', "import torch")
    (tmp_path / "train.py").write_text(
        program.format(more="from rows import negative", given="tfms=negative, ")
    )
    done = train(["train.py"], tmp_path, environment)
    assert done.stdout == "batch 1 True\n", done.stderr


def test_a_working_folder_that_was_deleted_does_no_harm(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """There is nothing to be found there."""
    folder = tmp_path / "gone"
    folder.mkdir()
    more = f"os.rmdir({str(folder)!r}); sys.path.insert(0, '')"
    program = TRAIN.replace('sys.modules["torch"] = None', "import torch")
    done = train(["-c", program.format(more=more, given="")], folder, environment)
    assert done.stdout == "batch 1 False\n", done.stderr


def test_the_packages_may_be_in_an_archive(environment: dict[str, str], tmp_path: Path) -> None:
    """And their folder's name may have a colon in it, which PYTHONPATH cannot say."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    archive = folder / "chunkdl.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for root, name in zip(ROOTS, ("chunkdl", "chunkdl_workers"), strict=True):
            for path in sorted((root / name).rglob("*")):
                if "__pycache__" not in path.parts:
                    file.write(path, path.relative_to(root))
    start = f"import sys; sys.path.insert(0, {str(archive)!r})\n"
    check = "import chunkdl; assert '.zip' in chunkdl.__file__"
    del environment["PYTHONPATH"]
    done = train(["-c", start + TRAIN.format(more=check, given="")], tmp_path, environment)
    assert done.stdout == "batch 1 False\n", done.stderr


@pytest.mark.parametrize(
    "closed", [(0,), (2,), (0, 1, 2)], ids=["stdin", "stderr", "all of the three"]
)
def test_a_training_whose_standard_files_are_closed_works(
    environment: dict[str, str], tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """Their numbers are given to what is opened next, and children have others there."""
    said = tmp_path / "said"
    more = f"[os.close(number) for number in {closed!r}]\nout = open({str(said)!r}, 'w')"
    done = train(["-c", TRAIN.format(more=more, given="")], tmp_path, environment)
    assert said.read_text().endswith("batch 1 False\n"), done.stderr


@pytest.mark.parametrize("flags", [["-I"], ["-s", "-O"], ["-E", "-X", "utf8"]])
def test_options_of_the_interpreter_hold_for_its_children(
    environment: dict[str, str], tmp_path: Path, flags: list[str]
) -> None:
    """They find what the training finds, and see its file names as it does."""
    start = f"import sys; sys.path[:0] = {list(map(str, ROOTS))!r}\n"
    more = (
        "from chunkdl.transport.programs import command_of\n"
        "command, _, told = command_of('chunkdl_workers.loader', 2)\n"
        f"missing = [flag for flag in {flags!r} if flag not in ' '.join(command)]\n"
        "assert not missing, missing"
    )
    done = train([*flags, "-c", start + TRAIN.format(more=more, given="")], tmp_path, environment)
    assert done.stdout == "batch 1 False\n", done.stderr


def test_a_program_that_is_no_python_is_told_what_to_do(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a Python built in has to name an interpreter."""
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", "")
    with (
        pytest.raises(ConfigError, match=r"multiprocessing\.set_executable"),
        LightDL(coordinate_dataset, **small_stream),
    ):
        pass


def test_the_standard_library_comes_first_unless_the_training_has_it_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of everything else is the training's; the working folder is last at first."""
    monkeypatch.chdir(tmp_path)
    mine = str(tmp_path / "mine")
    path = [mine, "", *[entry for entry in sys.path if entry], str(REPOSITORY / "..")]
    monkeypatch.setattr(sys, "path", path)
    imports = Imports.of_this_process()
    standard = os.path.dirname(os.__file__)
    assert imports.first[0].endswith(".zip")
    assert standard in imports.first[:3]
    assert imports.first[-1] == str(tmp_path)
    assert imports.then.index(standard) < imports.then.index(mine)
    assert imports.then.index(mine) < imports.then.index(str(tmp_path))
    assert str(REPOSITORY.parent) in imports.then
    assert Imports.of(json.loads(json.dumps(imports.told()))) == imports

    own = types.ModuleType("colorsys")
    own.__file__ = f"{mine}/colorsys.py"
    monkeypatch.setitem(sys.modules, "colorsys", own)
    assert Imports.of_this_process().then[:2] == (mine, str(tmp_path))
