"""The command line says what it does, and tells errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chunkdl import __version__
from chunkdl.commands import demo
from chunkdl.commands.demo import Tour, give_tour, synthetic_slides
from chunkdl.commands.main import main
from chunkdl.slides.synthetic.writing import write_tissue_slide


@pytest.fixture(scope="module")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small synthetic slides."""
    folder = tmp_path_factory.mktemp("slides")
    paths = [folder / f"slide-{number}.tif" for number in range(2)]
    for number, path in enumerate(paths):
        write_tissue_slide(path, 1280, 1024, seed=number)
    return paths


@pytest.fixture(autouse=True)
def own_mask_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave the user's mask cache alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run_module(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command in a Python of its own, with some code run before it."""
    then = "import sys\nfrom chunkdl.commands.main import main\nsys.exit(main(sys.argv[1:]))"
    program = f"{before}\n{then}"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_both_ways_to_ask_print_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`chunkdl version` and `chunkdl --version` print name and version."""
    assert main(["version"]) == 0
    with pytest.raises(SystemExit) as end:
        main(["--version"])

    assert end.value.code == 0
    assert capsys.readouterr().out == f"chunkdl {__version__}\n" * 2


def test_the_package_runs_as_a_program() -> None:
    """`python -m chunkdl` is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "chunkdl", "version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout == f"chunkdl {__version__}\n"
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["demo", "inspect"])
def test_an_error_is_one_line_and_exit_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slide that is not there is named on stderr, without a traceback."""
    missing = str(tmp_path / "missing.svs")
    given = ["demo", "--slides", missing] if command == "demo" else ["inspect", missing]

    assert main(given) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("chunkdl: error:")
    assert missing in lines[0]


SENSELESS = (
    *(["demo", "--seconds", "0"], ["inspect", "x", "--windows", "-1"]),
    *(["demo", "--out", "folder"], ["inspect", "x", "--icc", "adobe"]),
    ["inspect", "x", "--tissue", "{name="],
)


@pytest.mark.parametrize("given", SENSELESS)
def test_a_senseless_value_is_refused_before_anything_starts(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts and times below their least, and a picture of no kind, end with the usage and 2."""
    with pytest.raises(SystemExit) as end:
        main(given)

    assert end.value.code == 2
    assert given[-1] in capsys.readouterr().err


def test_without_torch_the_demo_names_what_to_install() -> None:
    """The demo without PyTorch is one line that names the extra; other commands still work."""
    without = "import sys; sys.modules['torch'] = None"
    done = run_module("demo", before=without)
    other = run_module("version", before=without)

    assert done.returncode == 2
    assert "chunkdl[torch]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert other.returncode == 0, other.stderr


def test_the_demo_shows_batches_a_resume_and_a_picture(
    two_slides: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some batches of given slides: a table, the proof that a resume is exact, a PNG."""
    sheet = tmp_path / "sheets" / "sheet.png"
    given = ["demo", "--slides", *map(str, two_slides), "--batches", "20", "--seconds", "300"]

    assert main([*given, "--out", str(sheet)]) == 0
    shown = capsys.readouterr().out
    table = [line.split() for line in shown.splitlines() if "2 patients, overlap" in line]
    assert [int(words[0]) for words in table] == [16, 20]
    assert all(0 < float(words[-1].rstrip("%")) < 100 for words in table)
    assert "saved after batch 20" in shown
    assert "the same, bit for bit" in shown
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_the_demo_names_living_processes(two_slides: list[Path], tmp_path: Path) -> None:
    """The ids that the tour names are those of one coordinator and its workers."""
    programs: dict[str, list[str]] = {}

    def look(line: str) -> None:
        if not line.startswith("processes"):
            return
        for part in line.removeprefix("processes").split(","):
            kind, *pids = part.split()
            programs[kind] = [Path("/proc", pid, "cmdline").read_text() for pid in pids]

    assert give_tour(Tour(two_slides, 1, 60.0, tmp_path / "sheet.png"), look)
    assert list(programs) == ["coordinator", "loader", "collector"]
    assert len(programs["coordinator"]) == 1
    for kind, lines in programs.items():
        assert lines
        assert all(f"chunkdl_workers.{kind}" in line for line in lines)


def test_the_demo_makes_its_slides_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic slides are kept and used again; nothing half-made lies beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "SLIDE_WIDTH", 1280)
    monkeypatch.setattr(demo, "SLIDE_HEIGHT", 1280)
    said: list[str] = []

    paths = synthetic_slides(said.append)
    made = {path: path.stat().st_mtime_ns for path in Path("demo-slides").iterdir()}
    assert synthetic_slides(said.append) == paths
    assert {path: path.stat().st_mtime_ns for path in Path("demo-slides").iterdir()} == made
    assert sorted(made) == paths
    assert len(said) == 1
