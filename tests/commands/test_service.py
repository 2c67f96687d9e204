"""The commands of the daemon say what they find, become the server, and end with a number."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from chunkdl.commands.main import main
from chunkdl.commands.service import table_of, with_options
from chunkdl.service.config_file import read_daemon_config
from chunkdl.service.config_help import explain
from chunkdl.service.keys import create_keys, fingerprint, load_public_key
from chunkdl.slides.synthetic.writing import CoordinateSlide
from tests.conftest import free_port

STAND_IN = """#!{python}
import json, os, sys
def content_of(descriptor):
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
open(os.environ["SAID"] + ".spec", "wb").write(content_of(int(sys.argv[-1])))
told = json.loads(content_of(int(sys.argv[-3])))
json.dump(
    {{
        "arguments": sys.argv[-4:-3],
        "pid": os.getpid(),
        "torch": "torch" in sys.modules,
        "threads": os.environ["OMP_NUM_THREADS"],
        "path": told["imports"]["then"],
        "variable": os.environ.get("PYTHONPATH"),
    }},
    open(os.environ["SAID"], "w"),
)
sys.exit(3)
"""
"""A program in the place of Python, which tells what it was started with, and ends with 3."""


@pytest.fixture
def config(tmp_path: Path, coordinate_slides: dict[str, CoordinateSlide]) -> Path:
    """The file of a service that is quick to check."""
    slides = ", ".join(f'"{path}"' for path in coordinate_slides)
    path = tmp_path / "service.toml"
    path.write_text(
        f"""
        [dataset]
        slides = [{slides}]
        [stream]
        batch_size = 4
        smallchunk_size = 32
        bigchunk_size = 128
        num_bigchunks = 2
        tissue = "none"
        [run]
        num_loaders = 1
        num_collectors = 1
        memory_limit = "64MiB"
        [service]
        bind = ["ipc://@chunkdl-cli"]
        max_consumers = 2
        """
    )
    return path


def test_a_good_file_is_summed_up(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` prints what would be served and ends with 0; nothing is started."""
    assert main(["check", str(config)]) == 0
    out, err = capsys.readouterr()
    assert "slides    3: 3 by reader tiff" in out
    assert "ipc://@chunkdl-cli (this user of this machine, and root)" in out
    assert err == ""


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch_size", "batch_sizes"), "stream.batch_sizes is unknown; did you mean batch_size?"),
        (("ipc://@chunkdl-cli", "tcp://127.0.0.1:5555"), "has no keys"),
        (("batch_size = 4", "batch_size = 0"), "batch_size=0 must be"),
        (("slide-0", "absent"), "absent.tif cannot be used"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    config: Path,
    command: str,
    change: tuple[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On stderr, with exit 2, before anything is started."""
    config.write_text(config.read_text().replace(*change))
    assert main([command, str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("chunkdl: error: ")
    assert message in err


def test_serve_becomes_the_server(config: Path, tmp_path: Path) -> None:
    """The same process, with the specification behind a descriptor, without torch.

    What it found is on stderr, and the exit status is the server's.
    """
    interpreter = tmp_path / "python"
    interpreter.write_text(STAND_IN.format(python=sys.executable))
    interpreter.chmod(0o700)
    transforms = "def double(data):\n    return data\n"
    (tmp_path / "daemon_rows.py").write_text(transforms)
    config.write_text(
        config.read_text().replace("[run]", 'transform = "daemon_rows:double"\n[run]')
    )
    program = f"""
import sys
sys.modules["torch"] = None
sys.executable = {str(interpreter)!r}
from chunkdl.commands.main import main
sys.exit(main(sys.argv[1:]))
"""
    options = ["--bind", "tcp://0.0.0.0:7", "tcp://[::1]:8", "--exit-when-idle", "--insecure"]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(config), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **environment,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SAID": str(tmp_path / "said"),
        },
    )
    out, err = process.communicate(timeout=60)

    assert process.returncode == 3, err
    assert out == ""
    assert "slides    3: 3 by reader tiff" in err
    assert "NOT PROTECTED" in err
    said = json.loads((tmp_path / "said").read_text())
    assert said["arguments"] == ["chunkdl_workers.server"]
    assert said["pid"] == process.pid
    assert not said["torch"]
    assert said["threads"] == "1"
    # The server finds the module of the transform, which lies beside the file.
    assert str(tmp_path) in said["path"]
    assert said["variable"] is None
    spec = pickle.loads((tmp_path / "said.spec").read_bytes())
    assert spec.binds == ("tcp://0.0.0.0:7", "tcp://[::1]:8")
    assert spec.exit_when_idle
    assert [entry.patient for entry in spec.config.slides] == [0, 1, 2]


def serve(config: Path, *options: str) -> subprocess.Popen[str]:
    """The real daemon, with its stderr to read."""
    return subprocess.Popen(
        [sys.executable, "-m", "chunkdl", "serve", str(config), *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def until_it_serves(daemon: subprocess.Popen[str]) -> list[str]:
    """What a daemon with log_format="json" says up to the line that it serves."""
    assert daemon.stderr is not None
    told = []
    for line in daemon.stderr:
        told.append(json.loads(line)["message"])
        if told[-1].startswith("serving at"):
            return told
    raise AssertionError(told)


def test_a_daemon_without_memory_ends_before_it_serves(config: Path, short_folder: Path) -> None:
    """With 2, a line that says what to lower, and no socket left; not at its first consumer."""
    address = f"ipc://{short_folder}/service"
    program = [sys.executable, "-m", "chunkdl", "serve", str(config), "--bind", address]
    # The limit on the size of files holds for anonymous ones too.
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *program],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 2, done.stderr
    assert "serving at" not in done.stderr
    assert "MiB for chunkdl-bigchunks; lower num_bigchunks" in done.stderr.splitlines()[-1]
    assert not list(short_folder.iterdir())


def test_a_daemon_serves_until_it_is_told_to_end(config: Path, short_folder: Path) -> None:
    """SIGTERM drains it and it ends with 0; a second one at its address ends with 3.

    With log_format="json" every line on stderr is an object.
    """
    config.write_text(config.read_text() + 'log_format = "json"\n')
    options = ["--bind", f"ipc://{short_folder}/service"]
    with serve(config, *options) as first:
        try:
            assert until_it_serves(first)[0] == "slides    3: 3 by reader tiff"

            second = serve(config, *options)
            told = second.communicate(timeout=60)[1]
            assert second.returncode == 3, told

            first.terminate()
            rest = first.communicate(timeout=60)[1]
            assert first.returncode == 0, rest
            assert all(json.loads(line)["message"] for line in rest.splitlines())
        finally:
            first.kill()


def test_ctl_asks_and_drains_a_daemon(
    config: Path, short_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By socket and, with an operator's key, over the network; an unknown group is exit 2."""
    create_keys("server", short_folder)
    public, secret = create_keys("me", short_folder)
    (short_folder / "clients").mkdir(mode=0o700)
    shutil.copy(public, short_folder / "clients")
    boss, boss_secret = create_keys("boss", short_folder)
    (short_folder / "clients" / "operators").mkdir(mode=0o700)
    shutil.copy(boss, short_folder / "clients" / "operators")
    here, there = f"ipc://{short_folder}/service", f"tcp://127.0.0.1:{free_port()}"
    config.write_text(
        config.read_text()
        + f"""log_format = "json"
        keys = "{short_folder}/server.key_secret"
        allowed_clients = "{short_folder}/clients"
        """
    )
    with serve(config, "--bind", here, there) as daemon:
        try:
            until_it_serves(daemon)
            assert main(["ctl", here, "status", "--group", "absent"]) == 2
            assert "no group 'absent'" in capsys.readouterr().err

            assert main(["ctl", here, "pause"]) == 0
            table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
            assert table["groups.train.paused"] == "True"

            patient = ["--timeout", "60", "--server-key", f"{short_folder}/server.key"]
            keys = [*patient, "--key", str(secret)]
            assert main(["ctl", there, "status", *keys]) == 0
            capsys.readouterr()
            assert main(["ctl", there, "drain", *keys]) == 2
            assert "drain is for operators" in capsys.readouterr().err

            keys[-1] = str(boss_secret)
            assert main(["ctl", there, "drain", "--json", *keys]) == 0
            assert json.loads(capsys.readouterr().out)["draining"]
            # It ends by itself then.
            rest = daemon.communicate(timeout=60)[1]
            assert daemon.returncode == 0, rest
        finally:
            daemon.kill()


def test_options_that_are_not_given_leave_the_file_alone(config: Path) -> None:
    """What the file says of addresses and of the end holds."""
    config.write_text(config.read_text() + "exit_when_idle = true\ninsecure = true\n")
    read = read_daemon_config(config)
    assert with_options(read, Namespace(bind=None, exit_when_idle=False, insecure=False)) == read


def test_the_exit_statuses_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    """In the help of `serve`, all five."""
    with pytest.raises(SystemExit) as end:
        main(["serve", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    statuses = [line.split()[0] for line in shown.partition("exit status:\n")[2].splitlines()]
    assert statuses == ["0", "1", "2", "3", "130"]


def test_the_configuration_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """`config --explain` prints the file; without the option it says what is missing."""
    assert main(["config", "--explain"]) == 0
    assert capsys.readouterr().out == explain()
    with pytest.raises(SystemExit) as end:
        main(["config"])
    assert end.value.code == 2


def test_keys_are_made_and_never_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`keygen` names the files and the fingerprint; a second time it refuses."""
    given = ["keygen", "server", "--dir", str(tmp_path / "keys")]
    assert main(given) == 0
    public = tmp_path / "keys" / "server.key"
    secret = tmp_path / "keys" / "server.key_secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [str(public), str(secret)]
    assert fingerprint(load_public_key(public)) in out
    assert secret.read_text().rpartition('= "')[2].strip().strip('"') not in out

    before = secret.read_bytes()
    assert main(given) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert secret.read_bytes() == before


@pytest.mark.parametrize("option", ["--key", "--server-key"])
def test_ctl_takes_both_keys_or_none(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One alone could not connect."""
    public, secret = create_keys("me", tmp_path)
    file = secret if option == "--key" else public
    assert main(["ctl", "tcp://127.0.0.1:5", "status", option, str(file)]) == 2
    assert "--server-key and --key belong together" in capsys.readouterr().err


def test_ctl_tells_that_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After the given time, in one line, with exit 2."""
    address = f"ipc://{tmp_path}/nobody"
    assert main(["ctl", address, "status", "--timeout", "0.2"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert address in err


@pytest.mark.parametrize("given", [["stop"], ["status", "--timeout", "0"]])
def test_ctl_refuses_what_it_does_not_know(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another verb, and no time to wait."""
    with pytest.raises(SystemExit) as end:
        main(["ctl", "ipc:///tmp/x", *given])
    assert end.value.code == 2
    assert given[-1] in capsys.readouterr().err


def test_an_answer_is_a_table() -> None:
    """One line for each value, under the names that lead to it, aligned."""
    answer = {
        "state": "running",
        "groups": {"train": {"position": 12, "members": []}},
        "sessions": [{"id": 1, "lag": None}, {"id": 2, "lag": 0.5}],
    }
    assert table_of(answer) == [
        "state                  running",
        "groups.train.position  12",
        "groups.train.members   -",
        "sessions.0.id          1",
        "sessions.0.lag         -",
        "sessions.1.id          2",
        "sessions.1.lag         0.5",
    ]
    assert table_of({}) == ["answer  -"]
