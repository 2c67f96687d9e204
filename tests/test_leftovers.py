"""Each test is asked what it has left behind, and only for what is its own."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = """
import atexit, os, socket, subprocess, sys, tempfile
from pathlib import Path
import tests.conftest

tests.conftest.PATIENCE_S = 0.5
KEPT = []
SLEEPER = [sys.executable, "-c", "import time; time.sleep(100)", "chunkdl_workers.loader"]

def test_nothing():
    pass

def test_another_program():
    own = {"PATH": os.environ["PATH"]}
    other = subprocess.Popen(SLEEPER, env=own)
    atexit.register(other.kill)
    for name in sys.argv[-1].split(":"):
        Path(name).touch()

def test_memory():
    KEPT.append(os.memfd_create("chunkdl-test"))

def test_a_socket():
    KEPT.append(socket.socket())

def test_a_process():
    KEPT.append(subprocess.Popen(SLEEPER))

def test_nothing_again():
    KEPT[-1].kill()
    KEPT[-1].wait()

def test_a_file():
    Path(tempfile.gettempdir(), "chunkdl-test").touch()

def test_named_memory():
    name = Path(f"/dev/shm/torch_{os.getpid()}_test_0")
    atexit.register(name.unlink)
    name.touch()
"""
LEAVE = {"memory", "a_socket", "a_process", "a_file", "named_memory"}


@pytest.fixture
def of_others(tmp_path: Path) -> Iterator[list[Path]]:
    """Names that another program might use while a test runs."""
    token = secrets.token_hex(8)
    names = [Path("/dev/shm", f"{kind}{token}") for kind in ("sem.mp-", "psm_", "torch_1_", "x")]
    names.append(tmp_path / "chunkdl-other")
    yield names
    for name in names:
        name.unlink(missing_ok=True)


def test_what_is_left_behind_is_an_error_and_what_others_do_is_none(
    tmp_path: Path, of_others: list[Path]
) -> None:
    """Memory, sockets, processes, files and names; another chunkdl runs and makes its own."""
    file = tmp_path / "test_inside.py"
    file.write_text(TESTS.replace("sys.argv[-1]", repr(":".join(map(str, of_others)))))
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-q", "-rE"]
    options += ["--hypothesis-profile=repeatable", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(file)],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
        check=False,
    )
    named = re.findall(r"^ERROR \S+::test_(\w+)", done.stdout, re.MULTILINE)
    # What was left stays for the tests after it, which are not blamed for it.
    assert set(named) == LEAVE, done.stdout
    assert all(name.exists() for name in of_others)
