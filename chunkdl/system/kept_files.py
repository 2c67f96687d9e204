"""Files that are kept from run to run: where caches lie, how they are named and written."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/chunkdl/NAME`, or `~/.cache/chunkdl/NAME` where that is not set.

    As the XDG Base Directory Specification asks, a relative `XDG_CACHE_HOME` is ignored.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return base / "chunkdl" / name


def state_of(path: str | os.PathLike[str]) -> bytes:
    """Size and time of change (ns) of a file: while they are the same, so is what it holds.

    Raises:
        OSError: it cannot be looked at.
    """
    facts = os.stat(path)
    return f"{facts.st_size} {facts.st_mtime_ns}".encode()


def key_of(parts: Iterable[bytes]) -> bytes:
    """The SHA-256 that names a file by all that its content depends on, 32 bytes."""
    # The length before each part keeps different lists of parts different as bytes.
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).digest()


def sealed(version: bytes, key: bytes, body: bytes) -> bytes:
    """The content of a file that proves what it is: version, key, checksum, body.

    Args:
        version: of what is in it.
        key: of `key_of`.
        body: what is kept.
    """
    return version + key + hashlib.sha256(body).digest() + body


def unsealed(data: bytes, version: bytes, key: bytes) -> bytes:
    """The body of what `sealed` made.

    Raises:
        ValueError: what is wrong with it.
    """
    named = len(version) + len(key)
    body = data[named + 32 :]
    if data[:named] != version + key:
        raise ValueError("they are not those of this slide")
    if hashlib.sha256(body).digest() != data[named : named + 32]:
        raise ValueError("they are damaged")
    return body


def read_at_most(file: Path, most_bytes: int) -> bytes:
    """The content of a file that was written by a program, and may be anything.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more bytes.
    """
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most_bytes:
            raise ValueError(f"it has {size} bytes, and at most {most_bytes} were expected")
        return opened.read()


def write_whole(
    file: Path,
    data: bytes,
    *,
    beside: Path | None = None,
    mode: int | None = None,
    to_disk: bool = False,
) -> None:
    """Write a file that readers see whole or not at all; makes its folder where it is not.

    Args:
        file: that is made, or replaced.
        data: its content.
        beside: where it is written before it takes its name, in the same folder; by default a name
            that no other writer has.
        mode: its permissions, whatever the umask; by default as the umask has it.
        to_disk: it is on the disk when this returns, so that it outlives a loss of power.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Never two writers in one file; a rename within a folder replaces the old one at once.
    own = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    unfinished = own if beside is None else beside

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags, 0o666 if mode is None else mode)

    try:
        with open(unfinished, "wb", opener=opener) as opened:
            if mode is not None:
                os.fchmod(opened.fileno(), mode)
            opened.write(data)
            if to_disk:
                opened.flush()
                os.fsync(opened.fileno())
        os.replace(unfinished, file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if to_disk:
        _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder be on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
