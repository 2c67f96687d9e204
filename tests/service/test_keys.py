"""Key files: made once, readable by their owner alone, refused with a reason when they are bad."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from zmq.auth import load_certificate

from chunkdl.errors import ConfigError
from chunkdl.service.keys import (
    AllowedClient,
    create_keys,
    fingerprint,
    load_client_keys,
    load_public_key,
    load_server_keys,
)


def mode(path: Path) -> int:
    """Permission bits."""
    return path.stat().st_mode & 0o777


def test_a_pair_is_made_that_only_its_owner_may_read(tmp_path: Path) -> None:
    """The secret file has mode 0600 whatever the umask; nothing else is left in the folder."""
    before = os.umask(0)
    try:
        public, secret = create_keys("server", tmp_path / "keys")
    finally:
        os.umask(before)

    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == [
        "server.key",
        "server.key_secret",
    ]
    assert (mode(public), mode(secret)) == (0o644, 0o600)
    assert mode(tmp_path / "keys") == 0o700


def test_the_files_are_those_of_pyzmq(tmp_path: Path) -> None:
    """Its own loader reads them, and the two keys belong together."""
    public, secret = create_keys("client", tmp_path)

    open_key, nothing = load_certificate(public)
    same, hidden = load_certificate(secret)
    assert nothing is None
    assert hidden is not None
    assert open_key == same == zmq.curve_public(hidden)
    assert load_client_keys(secret) == (open_key.decode(), hidden.decode())
    assert load_public_key(public) == open_key.decode()


@pytest.mark.parametrize("there", ["server.key", "server.key_secret"])
def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    """It keeps its content, and no half of a pair is left beside it."""
    (tmp_path / there).write_text("mine")

    with pytest.raises(ConfigError, match=rf"{there} is there already .* choose another name"):
        create_keys("server", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written."""
    with pytest.raises(ConfigError, match="is not a name for keys; use"):
        create_keys(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """As a ConfigError with the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"no keys could be made in .*file/keys"):
        create_keys("server", tmp_path / "file" / "keys")


def test_a_server_knows_the_clients_of_its_folder(tmp_path: Path) -> None:
    """One public key for each *.key, in the order of the names; other files are left alone."""
    _, secret = create_keys("server", tmp_path)
    clients = [create_keys(name, tmp_path / "all")[0] for name in ("b", "a")]
    allowed = tmp_path / "allowed"
    allowed.mkdir(mode=0o700)
    for file in clients:
        shutil.copy(file, allowed)
    (allowed / "README").write_text("who is who")

    keys = load_server_keys(secret, allowed)

    assert (keys.public, keys.secret) == load_client_keys(secret)
    assert keys.allowed == (
        AllowedClient("a.key", load_public_key(clients[1])),
        AllowedClient("b.key", load_public_key(clients[0])),
    )


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o602, 0o620])
def test_a_secret_that_others_may_use_is_refused(tmp_path: Path, bits: int) -> None:
    """With the command that mends it."""
    _, secret = create_keys("server", tmp_path)
    secret.chmod(bits)
    with pytest.raises(ConfigError, match=rf"mode {bits:03o}.*chmod 600 {secret}"):
        load_client_keys(secret)


def without_public(text: str) -> str:
    """A secret file without its public key."""
    return "\n".join(line for line in text.splitlines() if "public-key" not in line)


def with_other_public(text: str) -> str:
    """A secret file with somebody else's public key."""
    lines = text.splitlines()
    other = zmq.curve_keypair()[0].decode()
    return "\n".join(
        f'    public-key = "{other}"' if "public-key" in line else line for line in lines
    )


BAD: list[tuple[Callable[[str], str], str]] = [
    (lambda text: "", "is not a key file"),
    (lambda text: "public-key", "is not a key file"),
    (without_public, "is not a key file"),
    (lambda text: text.replace('key = "', 'key = "y'), "is damaged"),
    (lambda text: re.sub(r'"[^"]*"', f'"{"#" * 40}"', text), "is damaged"),
    (lambda text: text.replace('key = "', 'key = "ä'), "is damaged"),
    (with_other_public, "do not belong together"),
    (lambda text: text.split("    secret-key")[0], 'name the ".key_secret" file'),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD)
def test_a_file_without_a_good_pair_is_refused(
    tmp_path: Path, spoil: Callable[[str], str], reason: str
) -> None:
    """With the file and what is wrong."""
    _, secret = create_keys("server", tmp_path)
    secret.write_text(spoil(secret.read_text()))
    with pytest.raises(ConfigError, match=reason) as refused:
        load_client_keys(secret)
    assert str(secret) in str(refused.value)


def test_a_secret_file_among_the_public_ones_is_refused(tmp_path: Path) -> None:
    """A client that handed out its secret is told so."""
    _, secret = create_keys("client", tmp_path)
    allowed = tmp_path / "allowed"
    allowed.mkdir(mode=0o700)
    shutil.copy(secret, allowed / "client.key")
    with pytest.raises(ConfigError, match="holds a secret key"):
        load_server_keys(secret, allowed)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file and a missing folder."""
    _, secret = create_keys("server", tmp_path)
    with pytest.raises(ConfigError, match=r"absent\.key cannot be read: there is no such file"):
        load_public_key(tmp_path / "absent.key")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_public_key(tmp_path)
    with pytest.raises(ConfigError, match="absent, where the clients' public keys"):
        load_server_keys(secret, tmp_path / "absent")


def test_a_fingerprint_is_the_start_of_a_hash() -> None:
    """8 bytes of SHA-256, in hex: `printf %s KEY | sha256sum` says the same."""
    assert fingerprint("a" * 40) == hashlib.sha256(b"a" * 40).hexdigest()[:16]


def test_a_folder_of_consumers_may_have_the_name_of_that_of_operators(tmp_path: Path) -> None:
    """What counts is where it lies, not what it is called."""
    allowed = tmp_path / "operators"
    server = create_keys("server", tmp_path / "server")[1]
    create_keys("alice", allowed)[1].unlink()
    create_keys("boss", allowed / "operators")[1].unlink()
    found = load_server_keys(server, allowed).allowed
    assert [(one.file, one.is_operator) for one in found] == [
        ("alice.key", False),
        ("operators/boss.key", True),
    ]
