"""The pages about the service say what its code says.

Run as a program, this prints the tables of docs/protocol.md as they have to be.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from chunkdl.commands.main import main
from chunkdl.commands.service import VERBS
from chunkdl.sampling.rules import Rules
from chunkdl.sampling.shares import Remainder
from chunkdl.service.config_file import read_daemon_config
from chunkdl.transport.protocol.engine_messages import Statistics
from chunkdl.transport.protocol.service_messages import Piece, Position, ServiceMessage
from chunkdl.transport.protocol.session_states import drawing
from chunkdl.transport.row_format import ColumnFormat, RowFormat

REPOSITORY = Path(__file__).parents[1]
PROTOCOL = REPOSITORY / "docs" / "protocol.md"
SERVICE = REPOSITORY / "docs" / "service.md"
GUARANTEES = REPOSITORY / "docs" / "guarantees.md"
DEPLOY = REPOSITORY / "examples" / "deploy"

MESSAGES: tuple[Any, ...] = get_args(ServiceMessage)
SENDERS = {
    "consumer": (
        "Join Attach Released NextPass Ping Pause Resume Drain Leave AskCatalogue AskStatistics"
    ),
    "operator": "Operate",
    "service": (
        "LeaseOpened ArenaPassed Joined RowFormatKnown Delivered PassEnded CataloguePage Pong "
        "JoinFirst Detached ServiceEnding Waits GroupFailed OperatorAnswer Notice Refuse Statistics"
    ),
}
ANSWERS = {
    "Join": "Joined, then RowFormatKnown where a transform makes the rows; or Refuse",
    "Attach": "Delivered, as far as the credit goes",
    "Released": "Delivered, as many more",
    "NextPass": "Delivered, of the next pass",
    "Ping": "Pong",
    "Resume": "Delivered, what was held back",
    "AskCatalogue": "CataloguePage",
    "AskStatistics": "Statistics, or Notice where the engine does not run",
    "Operate": "OperatorAnswer or Refuse",
    "LeaseOpened": "Join with its token",
    "Delivered": "Released, once nothing reads it any more",
    "PassEnded": "NextPass, if there is to be one",
    "JoinFirst": "Join",
    "Detached": "nothing; get() raises ServiceRefused",
    "GroupFailed": "Leave; get() raises what it carries",
    "Refuse": "nothing; connect() or get() raises ServiceRefused",
}
"""What follows on a message; on the others nothing does."""
SAID = {
    ("Attach", "session"): "from Joined.",
    ("Released", "numbers"): "from Delivered.",
    ("NextPass", "epoch"): "number of the pass.",
    ("Leave", "epoch"): "of the step.",
    ("Leave", "step"): "that would have been next.",
    ("AskCatalogue", "first_patient"): "index.",
    ("AskCatalogue", "first_slide"): "index.",
    ("Operate", "version"): "of this protocol.",
    ("Operate", "token"): "as in Join.",
    ("Operate", "verb"): "status, pause, resume or drain.",
    ("Operate", "group"): "empty: all of them.",
    ("ArenaPassed", "engine"): "whose batches will lie there.",
    ("ArenaPassed", "slots"): "how many.",
    ("ArenaPassed", "slot_bytes"): "size of each.",
    ("RowFormatKnown", "format"): "see `RowFormat`.",
    ("PassEnded", "epoch"): "number of the pass.",
    ("PassEnded", "steps"): "batches of each rank in it.",
    ("PassEnded", "left_out"): "rows at its end.",
    ("CataloguePage", "first_patient"): "index.",
    ("CataloguePage", "patients"): "number, name and labels of each; a label is None, a number, a "
    "text, a truth value, or a list of these.",
    ("CataloguePage", "first_slide"): "index.",
    ("CataloguePage", "slides"): "path and labels of each.",
    ("Waits", "reason"): "for people.",
    ("GroupFailed", "failure"): "the error, with its traceback as text.",
    ("OperatorAnswer", "status"): "JSON.",
    ("Notice", "level"): "as in Python's logging.",
    ("Notice", "text"): "for people.",
    ("Notice", "of_user"): "code of the user said it; not used here.",
    ("Refuse", "reason"): "for people.",
    ("Piece", "slot"): "of the arena.",
    ("Piece", "first"): "row in the slot.",
    ("Piece", "rows"): "how many.",
    ("Piece", "dropped"): "rows of the piece that could not be made, int32.",
}
"""Fields that their class tells of in one sentence for all."""
SAID |= {("Statistics", name): "see `loader.stats()`." for name in Statistics.__struct_fields__}


def summary(kind: type) -> str:
    """What a message is for, in a line."""
    text = (kind.__doc__ or "").partition("Attributes:")[0]
    return " ".join(text.split())


def meanings(kind: type) -> dict[str, str]:
    """What a docstring says of each field."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (kind.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        start = re.match(r" {4,8}([a-z_]+(?:, [a-z_]+)*): (.*)", line)
        if start is not None:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def message_table() -> str:
    """Every message: who sends it, what follows, what it is for."""
    rows = ["|Message|From|What follows|For what|", "|---|---|---|---|"]
    for sender, names in SENDERS.items():
        kinds = {kind.__name__: kind for kind in MESSAGES}
        rows += [
            f"|`{name}`|{sender}|{ANSWERS.get(name, '-')}|{summary(kinds[name])}|"
            for name in names.split()
        ]
    return "\n".join(rows)


def field_table() -> str:
    """Every field of every message, and of the values in them."""
    rows = ["|Field|Type|What|", "|---|---|---|"]
    for kind in (*MESSAGES, RowFormat, ColumnFormat, Position, Remainder, Piece, Rules):
        said = meanings(kind)
        for name in kind.__struct_fields__:
            meaning = said.get(name) or SAID[kind.__name__, name]
            written = kind.__annotations__[name].replace("|", r"\|")
            rows.append(f"|`{kind.__name__}.{name}`|`{written}`|{meaning}|")
    return "\n".join(rows)


def test_every_message_and_field_is_on_the_page() -> None:
    """The tables are those of the classes; run this file to print them anew."""
    page = PROTOCOL.read_text()
    sent = [name for names in SENDERS.values() for name in names.split()]
    assert sorted(sent) == sorted(kind.__name__ for kind in MESSAGES)
    for kind in MESSAGES:
        assert f"|`{kind.__name__}`|" in page
        for name in kind.__struct_fields__:
            assert f"|`{kind.__name__}.{name}`|" in page
    assert message_table() in page
    assert field_table() in page


def test_the_states_of_a_session_are_drawn_as_they_are() -> None:
    """The diagram of the page is the table of the code."""
    drawn = re.findall(r"^```mermaid\n(.*?)\n```$", PROTOCOL.read_text(), re.DOTALL | re.MULTILINE)
    assert drawn == [drawing()]


def test_every_verb_of_ctl_is_explained() -> None:
    """An operator finds all of them on the page of the service."""
    page = SERVICE.read_text()
    assert [verb for verb in VERBS if f"|`{verb}`|" not in page] == []


def test_every_test_that_is_named_as_evidence_is_there() -> None:
    """A guarantee names the test that shows it, by file and function."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUARANTEES.read_text())
    assert len(named) > 20
    absent = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(), re.MULTILINE)
    ]
    assert absent == []


def test_the_example_of_a_configuration_is_one() -> None:
    """Every key of it is known and of the right type."""
    read = read_daemon_config(DEPLOY / "service.toml")
    assert read.groups.keys() == {"train", "trials"}
    assert msgspec.structs.asdict(read.service)["log_format"] == "json"


def test_the_examples_start_the_daemon_as_the_command_line_has_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What systemd and a container run gets as far as to the file, which is not there."""
    unit = (DEPLOY / "chunkdl.service").read_text()
    image = (DEPLOY / "Containerfile").read_text()
    lines = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    commands = [shlex.split(line)[1:] for line in lines]
    commands += [json.loads(line) for line in re.findall(r"^CMD (.*)$", image, re.MULTILINE)]
    assert len(commands) == 2
    for command in commands:
        assert main(command) == 2
        assert "service.toml cannot be read" in capsys.readouterr().err


def test_every_example_leaves_time_for_a_drain() -> None:
    """Whoever sends SIGTERM waits for longer than a drain takes before SIGKILL."""
    service = read_daemon_config(DEPLOY / "service.toml").service
    drain_s = msgspec.structs.asdict(service)["drain_s"]
    for name, word in (
        ("chunkdl.service", "TimeoutStopSec="),
        ("Containerfile", "--stop-timeout "),
        ("kubernetes.yaml", "terminationGracePeriodSeconds: "),
    ):
        found = re.search(rf"{word}(\d+)", (DEPLOY / name).read_text())
        assert found is not None, name
        assert int(found[1]) >= drain_s + 5


def test_every_example_listens_where_nobody_else_can() -> None:
    """In a folder of its own user, or under a name that only the pod has."""
    files = {file.name: file.read_text() for file in DEPLOY.iterdir()}
    places = {
        (name, address)
        for name, text in files.items()
        for address in re.findall(r"ipc://([^\s\"',\]]+)", text)
    }
    assert places == {
        ("chunkdl.service", "/run/chunkdl/service"),
        ("Containerfile", "/run/chunkdl/service"),
        ("kubernetes.yaml", "@chunkdl"),
        ("sbatch.sh", "$sockets/service"),
    }
    for name, words in (
        ("chunkdl.service", "RuntimeDirectory=chunkdl\nRuntimeDirectoryMode=0700\n"),
        ("chunkdl.service", "StateDirectory=chunkdl\nStateDirectoryMode=0700\n"),
        (
            "Containerfile",
            "install -d -m 700 -o 1000 -g 1000 /state /run/chunkdl\nUSER 1000:1000\n",
        ),
        ("sbatch.sh", 'mkdir -m 700 -p "$sockets"\n'),
        ("kubernetes.yaml", "mkdir -p /state/own && chmod -R u=rwX,go= /state/own"),
        ("kubernetes.yaml", 'journal = "/state/own/positions"'),
        ("kubernetes.yaml", "path: operators/operator.key}"),
        ("kubernetes.yaml", "{name: clients, mountPath: /clients, readOnly: true}"),
        ("kubernetes.yaml", "{name: keys, mountPath: /keys, readOnly: true}"),
    ):
        assert words in files[name], (name, words)


def test_the_script_for_slurm_is_one() -> None:
    """The shell understands it."""
    subprocess.run(["bash", "-n", str(DEPLOY / "sbatch.sh")], check=True)


if __name__ == "__main__":
    print(message_table(), field_table(), f"```mermaid\n{drawing()}\n```", sep="\n\n")
