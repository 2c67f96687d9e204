"""What the cgroups of this process still allow it of memory; both versions of cgroups.

A process is in one cgroup, which lies in others; each may have a limit, and all count. Where the
files lie depends on the mounts: in a container they may begin at its own cgroup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of one version of cgroups.

    Attributes:
        limits: files that name one; a file that is not there, or says "max", sets none.
        used: file with what is in use, page cache included.
        kept: lines of memory.stat with what of it the kernel gives back when memory is short.
    """

    limits: tuple[str, ...]
    used: str
    kept: tuple[str, ...]


_FIRST = _Version(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
# Above memory.high a process is slowed down until it is hardly one any more.
_SECOND = _Version(
    ("memory.max", "memory.high"),
    "memory.current",
    ("active_file", "inactive_file", "slab_reclaimable"),
)


def allowed_memory(process: Path = Path("/proc/self")) -> int | None:
    """Bytes that may still be taken before any of the cgroups is at its limit; None: no limit.

    Args:
        process: folder of the process below /proc.
    """
    left = [
        max(0, limit - used)
        for folder, version in _folders(process)
        if (limit := _limit(folder, version)) is not None
        and (used := _used(folder, version)) is not None
    ]
    return min(left, default=None)


def _limit(folder: Path, version: _Version) -> int | None:
    found = [_number(folder / name) for name in version.limits]
    return min((limit for limit in found if limit is not None), default=None)


def _used(folder: Path, version: _Version) -> int | None:
    used = _number(folder / version.used)
    if used is None:
        return None
    lines = (line.split() for line in _lines(folder / "memory.stat"))
    return used - sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in version.kept)


def _folders(process: Path) -> Iterator[tuple[Path, _Version]]:
    """The cgroup of the process and those around it, as far as they are mounted."""
    own: dict[str, str] = {}
    for line in _lines(process / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            own["cgroup2"] = path
        elif "memory" in controllers.split(","):
            own["cgroup"] = path
    for line in _lines(process / "mountinfo"):
        mounted, _, kind = line.partition(" - ")
        system, _, options = kind.split(" ", 2)
        if system not in own or (system == "cgroup" and "memory" not in options.split(",")):
            continue
        root, top = map(_unescaped, mounted.split(" ")[3:5])
        yield from _upwards(
            Path(top), _below(root, own[system]), _FIRST if system == "cgroup" else _SECOND
        )


def _upwards(top: Path, inside: Path, version: _Version) -> Iterator[tuple[Path, _Version]]:
    for part in (inside, *inside.parents):
        yield top / part, version


def _below(root: str, path: str) -> Path:
    """Where a cgroup lies below a mount that shows `root` and what is in it."""
    parts = Path(path).parts
    if ".." not in parts and Path(path).is_relative_to(root):
        return Path(path).relative_to(root)
    # The mount does not show it; what it shows are cgroups around it, or none of its.
    return Path()


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []  # no such controller, or nobody may look


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None  # no such controller, or "max": no limit
