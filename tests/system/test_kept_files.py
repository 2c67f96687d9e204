"""Files that are kept appear whole or not at all, and are named by all that they depend on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chunkdl.system.kept_files import key_of, read_at_most, sealed, unsealed, write_whole


@pytest.mark.parametrize("own_name", [False, True])
def test_a_file_that_cannot_be_replaced_stays_and_leaves_nothing(
    tmp_path: Path, *, own_name: bool
) -> None:
    """A name that cannot be taken, here of a folder, costs neither what was there nor space."""
    taken = tmp_path / "kept"
    (taken / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_whole(taken, b"new", beside=tmp_path / "beside" if own_name else None)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_file_has_the_wished_permissions_whatever_was_left_of_one_before(tmp_path: Path) -> None:
    """Also where a writer that was killed has left its file open to others."""
    beside = tmp_path / "kept.new"
    beside.write_bytes(b"longer than what comes")
    beside.chmod(0o666)
    before = os.umask(0)
    try:
        write_whole(tmp_path / "kept", b"new", beside=beside, mode=0o600, to_disk=True)
        write_whole(tmp_path / "folder" / "plain", b"new")
    finally:
        os.umask(before)
    kept = tmp_path / "kept"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"new", 0o600)
    assert (tmp_path / "folder" / "plain").stat().st_mode & 0o777 == 0o666
    assert not beside.exists()


def test_lists_of_parts_that_are_alike_as_bytes_have_different_keys() -> None:
    """Where one part ends belongs to the key."""
    assert len({key_of(parts) for parts in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"])}) == 3


def test_a_file_with_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    """Sizes are checked before memory is taken."""
    file = tmp_path / "kept"
    file.touch()
    os.truncate(file, 2**40)
    with pytest.raises(ValueError, match="at most 1000 were expected"):
        read_at_most(file, 1000)


def test_what_was_sealed_is_not_taken_for_anything_else() -> None:
    """Of another version, of another key, or damaged anywhere."""
    key = key_of([b"a"])
    data = sealed(b"version 1", key, b"body")
    assert unsealed(data, b"version 1", key) == b"body"
    assert unsealed(sealed(b"version 1", key, b""), b"version 1", key) == b""
    for version, other in ((b"version 2", key), (b"version 1", key_of([b"b"]))):
        with pytest.raises(ValueError, match="not those"):
            unsealed(data, version, other)
    for place in range(len(data)):
        turned = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ValueError, match=r"not those|damaged"):
            unsealed(turned, b"version 1", key)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"not those|damaged"):
            unsealed(data[:length], b"version 1", key)
