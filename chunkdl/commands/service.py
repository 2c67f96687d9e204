"""The command line of the stand-alone daemon: serve, check, config, keygen, ctl."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec

from chunkdl.commands.setting_flags import add_flag
from chunkdl.errors import ConfigError
from chunkdl.service.config_file import DaemonConfig, read_daemon_config, spec_of
from chunkdl.service.config_help import explain, summary
from chunkdl.service.daemon_log import JsonLines
from chunkdl.service.keys import create_keys, fingerprint, load_client_keys, load_public_key
from chunkdl.service.spec import ServiceSpec
from chunkdl.transport.channel import descriptor_of
from chunkdl.transport.programs import command_of

EXITS = (
    "exit status:\n  0    the service was drained, or its last consumer has left\n  1    the "
    "stream failed\n  2    the configuration was refused, or there is too little memory for "
    "it\n  3    an address is in use\n  130  interrupted\n"
)
VERBS = ("status", "pause", "resume", "drain")
SERVER = "chunkdl_workers.server"

Commands = argparse._SubParsersAction
"""What `add_subparsers` returns; argparse gives it no public name."""


def add_service_commands(
    commands: Commands[argparse.ArgumentParser], seconds: Callable[[str], float]
) -> None:
    """Add the commands of the daemon.

    Args:
        commands: of the whole program.
        seconds: type of an argument that is a time.
    """
    serve = commands.add_parser(
        "serve",
        help="serve a stream to many training processes",
        description=(
            "Starts the service that a configuration file describes in the foreground, and logs "
            "to stderr."
        ),
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("config", type=Path, metavar="CONFIG", help="TOML file")
    serve.add_argument(
        "--bind",
        action="extend",
        nargs="+",
        metavar="ADDR",
        help="address to listen at, instead of that in the file: ipc:///path or tcp://host:port",
    )
    add_flag(serve, "exit_when_idle")
    add_flag(serve, "insecure")
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check",
        help="check the configuration of a service",
        description="Checks a configuration file and shows what would be served; starts nothing.",
    )
    check.add_argument("config", type=Path, metavar="CONFIG", help="TOML file")
    check.set_defaults(run=_check)

    config = commands.add_parser("config", help="show the keys of a configuration")
    config.add_argument(
        "--explain",
        action="store_true",
        required=True,
        help="print a configuration file with every key, its unit, default and meaning",
    )
    config.set_defaults(run=_config)

    keygen = commands.add_parser(
        "keygen",
        help="make a key pair for a server or a client",
        description=(
            "Writes NAME.key, which you may give to anybody, and NAME.key_secret, which its "
            "owner keeps secret. Existing files are not overwritten. Put the public key of a "
            "client into the folder allowed_clients of the service, and the public key of an "
            "operator into the subfolder operators."
        ),
    )
    keygen.add_argument("name", metavar="NAME")
    keygen.add_argument(
        "--dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder of the keys (default: the current folder)",
    )
    keygen.set_defaults(run=_keygen)
    _add_ctl(commands, seconds)


def _add_ctl(commands: Commands[argparse.ArgumentParser], seconds: Callable[[str], float]) -> None:
    ctl = commands.add_parser(
        "ctl",
        help="query or control a running service",
        description="Sends one request to a running service and prints its answer.",
    )
    ctl.add_argument("address", metavar="ADDRESS", help="ipc:///path or tcp://host:port")
    ctl.add_argument("verb", choices=VERBS)
    ctl.add_argument("--group", metavar="NAME", help="only this group (default: all)")
    ctl.add_argument("--json", action="store_true", help="print the answer as JSON")
    ctl.add_argument(
        "--server-key", type=Path, metavar="FILE", help="public key of the service (NAME.key)"
    )
    ctl.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="your secret key (NAME.key_secret); all but status need an operator's",
    )
    ctl.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="S",
        help="seconds to wait for the answer (default: %(default)g)",
    )
    ctl.set_defaults(run=_ctl)


def _serve(given: argparse.Namespace) -> int:
    spec = spec_of(with_options(read_daemon_config(given.config), given))
    lines = JsonLines()
    for line in summary(spec):
        told = lines.line("chunkdl.service", line) if spec.log_format == "json" else line
        print(told, file=sys.stderr, flush=True)
    _become_server(spec)
    return 0


def with_options(config: DaemonConfig, given: argparse.Namespace) -> DaemonConfig:
    """A configuration with what the options of `serve` say instead."""
    options = {
        "bind": tuple(given.bind or ()),
        "exit_when_idle": given.exit_when_idle,
        "insecure": given.insecure,
    }
    changed = {key: value for key, value in options.items() if value}
    service = msgspec.structs.replace(config.service, **changed)
    return dataclasses.replace(config, service=service)


def _become_server(spec: ServiceSpec) -> None:
    """Signals and process id stay those that the caller knows."""
    descriptor = descriptor_of(cloudpickle.dumps(spec))
    os.set_inheritable(descriptor, True)
    command, environment, given = command_of(SERVER, stderr=2)
    os.set_inheritable(given, True)
    program = [*command, str(given), "0", str(descriptor)]
    os.execve(program[0], program, environment)  # noqa: S606 - our own program, no shell


def _check(given: argparse.Namespace) -> int:
    for line in summary(spec_of(read_daemon_config(given.config))):
        print(line)
    return 0


def _config(given: argparse.Namespace) -> int:
    del given
    print(explain(), end="")
    return 0


def _keygen(given: argparse.Namespace) -> int:
    public, secret = create_keys(given.name, given.dir)
    print(f"{public} (public, fingerprint {fingerprint(load_public_key(public))})")
    print(f"{secret} (secret)")
    return 0


def _ctl(given: argparse.Namespace) -> int:
    # Imported here: the other commands need no socket.
    from chunkdl.service.client.control import operate
    from chunkdl.service.keys import ClientKeys

    if (given.server_key is None) != (given.key is None):
        raise ConfigError("--server-key and --key belong together; give both or none")
    keys = None
    if given.key is not None:
        public, secret = load_client_keys(given.key)
        keys = ClientKeys(public, secret, load_public_key(given.server_key))
    answer = operate(
        given.address, given.verb, group=given.group, timeout_s=given.timeout, keys=keys
    )
    print(json.dumps(answer, indent=2) if given.json else "\n".join(table_of(answer)))
    return 0


def table_of(answer: dict[str, Any]) -> list[str]:
    """An answer in aligned lines, a value inside another under both their names."""
    pairs = list(_pairs("", answer))
    width = max((len(name) for name, _ in pairs), default=0)
    return [f"{name:<{width}}  {value}" for name, value in pairs]


def _pairs(name: str, value: object) -> Iterator[tuple[str, object]]:
    inside: dict[str, object] = {}
    if isinstance(value, dict):
        inside = {str(key): part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        inside = {str(index): part for index, part in enumerate(value)}
    if not inside:
        # Nothing is in it, or it is a value; an empty list has a line as well.
        yield name or "answer", "-" if value is None or isinstance(value, dict | list) else value
    for key, part in inside.items():
        yield from _pairs(f"{name}.{key}" if name else key, part)
