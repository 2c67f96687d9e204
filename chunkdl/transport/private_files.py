"""Files and folders that only their owner and root may change, for sockets, keys and positions.

Whoever could write there, or to a folder on the way, could put their own in the place of ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from chunkdl.errors import ConfigError
from chunkdl.system.steady_log import steady_logger

log = steady_logger("chunkdl")

_told: set[Path] = set()
"""Folders of others that were warned of; of any thread, and twice is no harm."""
MOST_LINKS = 40
"""On the way to a file, as the kernel has it."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_own_folder(folder: Path, what: str) -> None:
    """See that nobody else can put anything into a folder.

    Args:
        folder: that is there.
        what: lies there or will, for people, such as "the sockets of the service".

    Raises:
        ConfigError: somebody could, or it is not a folder; what to do.
    """
    found, place = _at_the_end(folder, what)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{folder} is not a folder, and {what} should lie there; choose another")
    _check_owner(found, place, what)
    if not found.st_mode & OTHERS_WRITE or _is_read_only(place):
        return
    mine = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    remedy = f"chmod 700 {place}" if mine else f"make one of your own: mkdir -m 700 {place}/chunkdl"
    raise ConfigError(
        f"others may write to {place} (mode {_mode(found)}), where {what} should lie, and could "
        f"put theirs there; {remedy}"
    )


def check_own_file(file: Path, what: str, *, secret: bool = False) -> None:
    """See that nobody else can change a file or put another in its place.

    Args:
        file: that is there.
        what: it is, for people.
        secret: nor may anybody else read it.

    Raises:
        ConfigError: somebody could, or there is none; what to do.
    """
    found, place = _at_the_end(file, what)
    _check_owner(found, place, what)
    if secret and found.st_mode & 0o077:
        raise ConfigError(
            f"others may use {place} (mode {_mode(found)}), which holds a secret key; "
            f"chmod 600 {place}, and make new keys if somebody may have read it"
        )
    if found.st_mode & OTHERS_WRITE:
        raise ConfigError(
            f"others may write to {place} (mode {_mode(found)}), {what}; look at what is in it, "
            f"then chmod go-w {place}"
        )


def check_way(file: Path, what: str, *, strict: bool = False) -> None:
    """See that nobody else can exchange a folder on the way to a file, there or not.

    A group may write to one of them: it could only put there what belongs to its members, which is
    refused for that. So may everybody where only owners rename ("sticky", as /tmp). One of somebody
    else, as project folders are, is told of.

    Args:
        file: that need not be there.
        what: it is, for people.
        strict: refuse folders of others as well.

    Raises:
        ConfigError: somebody can; what to do.
    """
    found, place = _at_the_end(file.absolute().parent, what, strict=strict)
    _check_parent(found, place, file, what, strict=strict)


def check_shared_folder(folder: Path, what: str, *, by_wish: bool) -> None:
    """See that not just anybody can put something into a folder, if it is there.

    Args:
        folder: that need not be there.
        what: lies there, for people, such as "tissue masks".
        by_wish: somebody has named it, who may share it with the group, or with its owner.

    Raises:
        ConfigError: somebody else can; what to do.
    """
    try:
        found = os.stat(folder)
    except OSError:
        return
    if found.st_mode & stat.S_IWOTH and not _is_read_only(folder):
        raise ConfigError(
            f"everybody may write to {folder} (mode {_mode(found)}), where {what} lie, and could "
            f"put theirs there; chmod o-w {folder}, or choose a folder of your own in it"
        )
    if not by_wish and found.st_uid not in _trusted():
        raise ConfigError(
            f"{folder}, where {what} lie, belongs to user {found.st_uid}; name another as "
            "mask_cache, or that one to share it"
        )


def _at_the_end(path: Path, what: str, *, strict: bool = False) -> tuple[os.stat_result, Path]:
    """What is at the end of a path behind all links, and where; all before it was looked at."""
    place, rest, links = Path("/"), list(path.absolute().parts[1:]), 0
    try:
        found = os.lstat(place)
        while rest:
            _check_parent(found, place, path, what, strict=strict)
            name = rest.pop(0)
            if name == "..":
                place = place.parent
                found = os.lstat(place)
                continue
            found = os.lstat(place / name)
            if not stat.S_ISLNK(found.st_mode):
                place = place / name
                continue
            links += 1
            if found.st_uid not in _trusted():
                raise ConfigError(
                    f"{place / name} is a link of user {found.st_uid}, on the way to {path}, where "
                    f"{what} should lie; name a path without it"
                )
            if links > MOST_LINKS:
                raise ConfigError(f"the path {path} has too many links; name another")
            target = Path(os.readlink(place / name))
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
            if target.is_absolute():
                place = Path("/")
            found = os.lstat(place)
    except OSError as error:
        raise ConfigError(
            f"{path}, where {what} should lie, cannot be used: {error.strerror}; make it, or name "
            "another"
        ) from error
    return found, place


def _check_parent(
    found: os.stat_result, place: Path, path: Path, what: str, *, strict: bool = False
) -> None:
    """See that nobody can exchange what lies in a folder on the way."""
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    remedy = "choose a folder below those of your own or of root"
    if open_to_all and not _is_read_only(place):
        raise ConfigError(
            f"{path}, where {what} should lie, is inside of {place}, which everybody may write to "
            f"(mode {_mode(found)}), so that others could exchange it; {remedy}, or "
            f"chmod o-w {place}"
        )
    if found.st_uid in {*_trusted(), *_unknown()}:
        return
    where = (
        f"{path}, where {what} should lie, is inside of {place}, which belongs to user "
        f"{found.st_uid}, who could exchange it; {remedy}"
    )
    if strict:
        raise ConfigError(where)
    if place not in _told:
        _told.add(place)
        log.warning("%s, unless you trust that user, as in a folder of a project", where)


def _check_owner(found: os.stat_result, place: Path, what: str) -> None:
    if found.st_uid not in _trusted():
        raise ConfigError(
            f"{place}, where {what} should lie, belongs to user {found.st_uid}, and this is user "
            f"{os.geteuid()}; choose one of your own, or be that user"
        )


def _trusted() -> set[int]:
    """Who may change what is ours: we ourselves, and root, who may anyway."""
    return {os.geteuid(), 0}


def _unknown() -> set[int]:
    """The number that stands for users that this namespace of users has not, as a host's root."""
    try:
        users = Path("/proc/self/uid_map").read_text().split()
        number = int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return set()
    return set() if users == ["0", "0", str(2**32 - 1)] else {number}


def _is_read_only(place: Path) -> bool:
    """Whether it is a read-only volume, as of a container, to which the modes say nothing.

    Not what only lies in one: there a service may be all that sees it read-only.
    """
    return os.path.ismount(place) and bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def _mode(found: os.stat_result) -> str:
    return f"{found.st_mode & 0o7777:03o}"
