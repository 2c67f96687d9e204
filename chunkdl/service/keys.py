"""Key pairs of CURVE, with which a service and its clients know each other over a network.

The files are pyzmq's certificates: NAME.key holds the public key and may be given to anybody,
NAME.key_secret holds both and stays with its owner. A service has a folder of the public keys of
those who may connect; in it, the folder "operators" has those of the clients that may steer it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

from chunkdl.errors import ConfigError
from chunkdl.service.decisions.visitors import OPERATORS
from chunkdl.transport.private_files import check_own_file, check_own_folder, check_way


@dataclass(frozen=True, slots=True)
class AllowedClient:
    """A client that may connect with its key.

    Attributes:
        file: that its public key lies in, as seen from the folder of the clients.
        public: its key, in Z85 text.
        is_operator: it may steer the service; others only consume.
    """

    file: str
    public: str
    is_operator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """CURVE keys of a service, in Z85 text.

    Attributes:
        public, secret: of the service.
        allowed: clients that may connect.
    """

    public: str
    secret: str
    allowed: tuple[AllowedClient, ...]


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """CURVE keys of a consumer, and the public one of the service, in Z85 text."""

    public: str
    secret: str
    server: str


_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def create_keys(name: str, folder: Path) -> tuple[Path, Path]:
    """Make a key pair in two new files; the folder is made where it is not there.

    Args:
        name: of the files, before ".key" and ".key_secret".
        folder: for both.

    Returns:
        (public file, secret file); only the owner may read the secret one.

    Raises:
        ConfigError: the name is none, a file is there already, or the folder cannot be used.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a name for keys; use 1 to 64 letters, digits, and _ . -"
        )
    made: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_way(folder / name, "keys")
        # pyzmq writes files that everybody may read; nobody else can enter this folder.
        with tempfile.TemporaryDirectory(dir=folder) as private:
            pair = [Path(file) for file in create_certificates(private, name)]
            for file, mode in zip(pair, (0o644, 0o600), strict=True):
                _write_new(folder / file.name, file.read_bytes(), mode)
                made.append(folder / file.name)
    except OSError as error:
        for file in made:
            file.unlink()
        if isinstance(error, FileExistsError):
            raise ConfigError(
                f"{error.filename} is there already and is not overwritten; choose another name, "
                "or delete it yourself"
            ) from error
        raise ConfigError(f"no keys could be made in {folder}: {error.strerror}") from error
    public, secret = made
    return public, secret


def load_server_keys(secret_file: Path, allowed_folder: Path) -> Keys:
    """The keys of a service and of the clients that it lets in.

    Args:
        secret_file: the service's "NAME.key_secret".
        allowed_folder: has one "NAME.key" for each consumer, and in a folder "operators", where
            there is one, those of operators; other files are not looked at.

    Raises:
        ConfigError: a file or the folder is not there, holds no good key, or could be changed by
            others; or one key is in two files.
    """
    public, secret = load_client_keys(secret_file)
    clients: dict[str, AllowedClient] = {}
    for file in _key_files(allowed_folder):
        check_own_file(file, "a key of a client")
        name = str(file.relative_to(allowed_folder))
        client = AllowedClient(
            name, load_public_key(file), file.parent == allowed_folder / OPERATORS
        )
        before = clients.setdefault(client.public, client)
        if before is not client:
            raise ConfigError(
                f"{before.file} and {name} in {allowed_folder} hold the same key; remove the one "
                "that does not say what its owner may do"
            )
    return Keys(public=public, secret=secret, allowed=tuple(clients.values()))


def _key_files(folder: Path) -> list[Path]:
    """Those of the consumers and those of the operators, each in the order of their names."""
    files: list[Path] = []
    try:
        operators = folder / OPERATORS
        for place in (folder, operators) if os.path.lexists(operators) else (folder,):
            check_own_folder(place, "the clients' public keys")
            files += sorted(file for file in place.iterdir() if file.suffix == ".key")
    except OSError as error:
        raise ConfigError(
            f"the folder of the clients' public keys, {folder}, cannot be read: {error.strerror}"
        ) from error
    return files


def load_client_keys(secret_file: Path) -> tuple[str, str]:
    """Public and secret key, in Z85 text, of a "NAME.key_secret".

    Raises:
        ConfigError: the file is not there, others may read or exchange it, or it holds no good
            pair.
    """
    public, secret = _load(secret_file)
    if secret is None:
        raise ConfigError(f'{secret_file} has no secret key; name the ".key_secret" file')
    check_own_file(secret_file, "a secret key", secret=True)
    if zmq.curve_public(secret.encode()) != public.encode():
        raise ConfigError(
            f"the two keys in {secret_file} do not belong together; make new ones with "
            '"chunkdl keygen"'
        )
    return public, secret


def load_public_key(file: Path) -> str:
    """The public key, in Z85 text, of a "NAME.key".

    Raises:
        ConfigError: the file is not there, everybody may write to it, it holds no good key, or a
            secret one as well.
    """
    public, secret = _load(file)
    if secret is not None:
        raise ConfigError(
            f'{file} holds a secret key, which its owner alone should have; name the ".key" file'
        )
    if file.stat().st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"everybody may write to {file}, so the key in it may be anybody's; compare its "
            f"fingerprint with the owner's, then chmod o-w {file}"
        )
    return public


def fingerprint(public: str) -> str:
    """What people compare: the first 8 bytes of the SHA-256 of the key's text, in hex."""
    return hashlib.sha256(public.encode()).hexdigest()[:16]


def _load(file: Path) -> tuple[str, str | None]:
    try:
        public, secret = load_certificate(file)
    except OSError as error:
        reason = error.strerror or "there is no such file"
        raise ConfigError(f"the key file {file} cannot be read: {reason}") from error
    except (ValueError, IndexError) as error:
        raise ConfigError(f'{file} is not a key file; "chunkdl keygen" makes key files') from error
    for key in (public, secret):
        if key is not None and not _is_key(key):
            raise ConfigError(f"a key in {file} is damaged: it is not a Z85 text of 40 characters")
    return public.decode(), None if secret is None else secret.decode()


def _is_key(text: bytes) -> bool:
    """Whether it is Z85 text of 32 bytes."""
    try:
        return len(text) == 40 and len(z85.decode(text)) == 32
    except (KeyError, struct.error):
        return False  # a letter that Z85 has not, or five that are more than 32 bits


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not be there yet.

    Raises:
        FileExistsError: it is.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
