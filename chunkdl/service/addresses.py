"""The addresses that a service listens on: what they may be."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from pathlib import Path

from chunkdl.errors import ConfigError
from chunkdl.transport.private_files import check_own_folder, check_way

MOST_ADDRESSES = 8
MOST_PATH_BYTES = 100
"""Of the path of an ipc address and of the lease beside it; the kernel takes little more."""
LEASE_SUFFIX = ".lease"
"""Of the file beside a socket that says whose it is."""
TEMPORARY = Path("/tmp")  # noqa: S108 - the folder in it is ours alone, or refused
"""Where the runtime folder is made when the system names none."""
SOCKET_NAME = "service"
"""Of the default address, inside the runtime folder."""

_TCP = re.compile(
    r"tcp://(?:\[(?P<literal>[^\]]*)\]|(?P<host>\*|[A-Za-z0-9_.-]+)):(?P<port>[0-9]+)"
)


def check_addresses(binds: tuple[str, ...]) -> None:
    """Refuse addresses that a service cannot listen on.

    Raises:
        ConfigError: there is none, there are too many, one comes twice, or one is wrong.
    """
    if not 1 <= len(binds) <= MOST_ADDRESSES:
        raise ConfigError(
            f"bind has {len(binds)} addresses; give 1 to {MOST_ADDRESSES}, like "
            '"ipc:///run/chunkdl/service" or "tcp://127.0.0.1:5555"'
        )
    for bind in binds:
        if binds.count(bind) > 1:
            raise ConfigError(f"bind has {bind} twice; leave one out")
        if not isinstance(bind, str) or not bind.startswith(("ipc://", "tcp://")):
            raise ConfigError(
                f'bind: {bind!r} is not an address; write "ipc:///absolute/path" or "tcp://host:port"'
            )
        if bind.startswith("ipc://"):
            _check_path(bind)
        else:
            _check_host(bind)


def check_connecting(address: str) -> int:
    """See that nobody else can have put a socket at an ipc address, as far as it is there.

    Returns:
        The user whose service may be there, beside root: ourselves, and for root, who may steer
        the service of anybody, the owner of the folder.

    Raises:
        ConfigError: somebody could; what to do.
    """
    user = os.geteuid()
    folder = os.path.dirname(address.removeprefix("ipc://"))
    # A folder of others that we may not even look into is told of where we connect.
    if os.path.isabs(folder) and os.path.isdir(folder):
        owner = os.stat(folder).st_uid
        if user == 0 and owner != 0:
            return owner
        check_own_folder(Path(folder), "the sockets of the service")
    return user


def lease_address(address: str) -> str:
    """Where the lease socket of an ipc address is, as the socket module wants it.

    "ipc://@name" is in the abstract namespace: no file is left behind, whoever is killed.
    """
    path = address.removeprefix("ipc://") + LEASE_SUFFIX
    return "\0" + path[1:] if path.startswith("@") else path


def default_address() -> str:
    """The address of a service that none was given to, in a folder that only its user may enter.

    The folder is made where it is not there yet: $XDG_RUNTIME_DIR/chunkdl, or /tmp/chunkdl-UID.

    Raises:
        ConfigError: the folder cannot be made, is somebody else's, or is open to others.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    own = TEMPORARY / f"chunkdl-{os.getuid()}"
    folder = Path(runtime, "chunkdl") if os.path.isabs(runtime) else own
    remedy = "give service.bind an address, or set XDG_RUNTIME_DIR to a folder of your own"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(
            f"the runtime folder {folder} cannot be used: {error.strerror}; {remedy}"
        ) from error
    # Whoever owns the folder, or may write to it, could put a socket of theirs there.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"the runtime folder {folder} belongs to somebody else; {remedy}")
    if found.st_mode & 0o077:
        raise ConfigError(f"the runtime folder {folder} is open to others; chmod 700 {folder}")
    check_way(folder, "the sockets of the service", strict=True)
    return f"ipc://{folder / SOCKET_NAME}"


def _check_path(bind: str) -> None:
    path = bind.removeprefix("ipc://")
    if path.startswith("@") and len(path) > 1 and "\0" not in path and len(path) < MOST_PATH_BYTES:
        return
    if not os.path.isabs(path) or path.endswith("/") or "\0" in path:
        raise ConfigError(
            f"bind: {bind!r} names no file by its absolute path; write ipc:///absolute/path"
        )
    size = len(os.fsencode(path + LEASE_SUFFIX))
    if size > MOST_PATH_BYTES:
        raise ConfigError(
            f"bind: the path {path}{LEASE_SUFFIX} has {size} bytes, at most {MOST_PATH_BYTES} are "
            "possible; choose a shorter folder"
        )
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigError(
            f"bind: there is no folder {os.path.dirname(path)} for {bind}; make it, or choose "
            "another"
        )
    check_own_folder(Path(path).parent, "the sockets of the service")


def _check_host(bind: str) -> None:
    match = _TCP.fullmatch(bind)
    if match is None:
        raise ConfigError(
            f'bind: {bind!r} is not an address; write "tcp://host:port", an IPv6 address in '
            "brackets"
        )
    if not 1 <= int(match["port"]) <= 65535:
        raise ConfigError(f"bind: the port of {bind} must lie between 1 and 65535")
    if match["host"] is not None:
        return
    try:
        ipaddress.IPv6Address(match["literal"])
    except ValueError as error:
        raise ConfigError(f"bind: {bind!r} has no IPv6 address in its brackets: {error}") from error
