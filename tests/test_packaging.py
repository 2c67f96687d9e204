"""The wheel and the editable install hold both packages and work from any folder.

No network: the environment that runs the tests lends its packages to a fresh one by a .pth file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = {
    "chunkdl": REPOSITORY / "chunkdl",
    "chunkdl_workers": REPOSITORY / "workers" / "chunkdl_workers",
}
DEADLINE_S = 150.0


def run(*command: str | Path, cwd: Path) -> str:
    """What the program prints; fails with its whole output when it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def install(environment: Path, *what: str | Path) -> None:
    """A fresh environment with only chunkdl of its own; the rest is lent by this one."""
    venv.create(environment, with_pip=False, symlinks=True)
    packages = environment.joinpath(
        "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages"
    )
    # A folder that a .pth file adds has its own .pth files ignored, so an editable chunkdl of the
    # running environment stays invisible; its metadata does not, hence --ignore-installed.
    packages.joinpath("lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        *(sys.executable, "-m", "pip", "--python", environment / "bin" / "python"),
        *("install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--ignore-installed", *what),
        cwd=environment,
    )


def imported_from(environment: Path, cwd: Path) -> dict[str, Path]:
    """Where the Python of `environment`, started in `cwd`, finds both packages."""
    program = "import chunkdl, chunkdl_workers as w; print(chunkdl.__file__); print(w.__file__)"
    lines = run(environment / "bin" / "python", "-c", program, cwd=cwd).split()
    return dict(zip(PACKAGES, (Path(line).parent for line in lines), strict=True))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel installed."""
    environment = tmp_path_factory.mktemp("installed")
    install(environment, wheel)
    return environment


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the working tree installed editable."""
    environment = tmp_path_factory.mktemp("editable")
    install(environment, "--editable", REPOSITORY)
    return environment


def test_the_wheel_holds_every_file_of_both_packages_and_nothing_else(wheel: Path) -> None:
    """A module that the build leaves out, or a test that it takes along, is seen here."""
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    sources = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - metadata == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_wheel_carries_the_licence(wheel: Path) -> None:
    """Apache-2.0 asks that every copy comes with the licence text."""
    archive = zipfile.ZipFile(wheel)
    (licence,) = (name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
    assert archive.read(licence) == REPOSITORY.joinpath("LICENSE").read_bytes()


def test_an_installed_wheel_imports_from_an_unrelated_folder(
    installed: Path, tmp_path: Path
) -> None:
    """Both packages come out of the environment, not out of the working tree."""
    for package, folder in imported_from(installed, tmp_path).items():
        assert folder.name == package
        assert folder.is_relative_to(installed)


def test_an_editable_install_imports_the_working_tree_from_an_unrelated_folder(
    editable: Path, tmp_path: Path
) -> None:
    """Both packages come out of the working tree, although they lie in different folders of it."""
    assert imported_from(editable, tmp_path) == PACKAGES


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_the_command_explains_itself(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """`chunkdl --help` works in both kinds of install and names the subcommands."""
    environment: Path = request.getfixturevalue(kind)
    text = run(environment / "bin" / "chunkdl", "--help", cwd=tmp_path)
    assert "demo" in text
    assert "inspect" in text
