"""The memory that cgroups still allow, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chunkdl.system.cgroups import allowed_memory

GIB = 2**30
MOUNT = "31 23 0:28 {root} {top} rw,relatime shared:4 - {kind} cgroup rw,{options}\n"


@pytest.fixture
def process(tmp_path: Path) -> Path:
    """The folder of a process."""
    folder = tmp_path / "process"
    folder.mkdir()
    (folder / "mountinfo").write_text("22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n")
    return folder


def in_group(process: Path, path: str, *, second: bool, root: str = "/") -> Path:
    """Have the process be in a cgroup; the folder where its version is mounted."""
    top = process.parent / ("second of them" if second else "first")
    line = f"0::{path}\n" if second else f"4:cpu,memory:{path}\n3:cpuset:/elsewhere\n"
    with (process / "cgroup").open("a") as file:
        file.write(line)
    mount = MOUNT.format(
        root=root,
        top=str(top).replace(" ", "\\040"),
        kind="cgroup2" if second else "cgroup",
        options="nsdelegate" if second else "memory",
    )
    with (process / "mountinfo").open("a") as file:
        file.write(mount)
        file.write(MOUNT.format(root="/", top="/nowhere", kind="cgroup", options="cpuset"))
    return top


def first(folder: Path, limit: int, used: int, cache: int = 0) -> None:
    """A cgroup of version 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"cache {cache + 5}\nactive_file 1\ninactive_file 1\nhierarchical_memory_limit {limit}\n"
        f"total_cache {cache + 5}\ntotal_shmem 5\ntotal_inactive_file {cache // 2}\n"
        f"total_active_file {cache - cache // 2}\n"
    )


def second(folder: Path, limit: str, used: int, cache: int = 0, high: str = "max") -> None:
    """A cgroup of version 2."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.high").write_text(f"{high}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon 7\nfile {cache + 5}\nshmem 5\ninactive_file {cache}\nactive_file 0\n"
    )


def test_a_process_without_limits_has_none(process: Path) -> None:
    """In no cgroup, in one whose files are not there, or in one that sets none."""
    assert allowed_memory(process) is None
    assert allowed_memory(process / "away") is None
    top = in_group(process, "/a", second=True)
    assert allowed_memory(process) is None
    second(top / "a", "max", 3 * GIB)
    assert allowed_memory(process) is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_on_the_way_up_counts(process: Path, version: int) -> None:
    """Of its own cgroup and of all around it, each with what is used in it; not of others."""
    top = in_group(process, "/slice/job/step", second=version == 2)

    def group(name: str, limit: int, used: int) -> None:
        if version == 1:
            first(top / name, limit, used)
        else:
            second(top / name, str(limit), used)

    group("", 900 * GIB, 500 * GIB)
    group("slice", 64 * GIB, 60 * GIB)
    group("slice/job", 32 * GIB, 20 * GIB)
    group("slice/job/step", 16 * GIB, 8 * GIB)
    group("slice/other", GIB, GIB)
    assert allowed_memory(process) == 4 * GIB
    group("slice", 64 * GIB, 10 * GIB)
    assert allowed_memory(process) == 8 * GIB
    group("slice/job/step", 16 * GIB, 17 * GIB)
    assert allowed_memory(process) == 0


@pytest.mark.parametrize("version", [1, 2])
def test_page_cache_is_not_counted_as_used(process: Path, version: int) -> None:
    """The kernel gives it back; memory that is shared between processes it cannot."""
    top = in_group(process, "/job", second=version == 2)
    if version == 1:
        first(top / "job", 16 * GIB, 15 * GIB, cache=12 * GIB)
    else:
        second(top / "job", str(16 * GIB), 15 * GIB, cache=12 * GIB)
    assert allowed_memory(process) == 13 * GIB


def test_a_group_that_is_slowed_down_is_at_its_limit(process: Path) -> None:
    """Above memory.high nothing gets on any more."""
    top = in_group(process, "/job", second=True)
    second(top / "job", str(16 * GIB), 2 * GIB, high=str(4 * GIB))
    assert allowed_memory(process) == 2 * GIB


def test_both_versions_may_be_mounted(process: Path) -> None:
    """Whichever has the controller of memory."""
    in_group(process, "/", second=True)
    top = in_group(process, "/job", second=False)
    first(top / "job", 8 * GIB, GIB)
    assert allowed_memory(process) == 7 * GIB


@pytest.mark.parametrize("root", ["/docker/1234", "/docker/other", "/../.."])
def test_a_container_sees_its_own_cgroup_where_it_is_mounted(process: Path, root: str) -> None:
    """The mount may begin at it, or at one that the process cannot name."""
    top = in_group(process, "/docker/1234", second=False, root=root)
    first(top, 8 * GIB, GIB)
    assert allowed_memory(process) == 7 * GIB


def test_this_process_is_in_cgroups_that_can_be_read() -> None:
    """Whatever they say."""
    allowed = allowed_memory()
    assert allowed is None or allowed > 0
    assert allowed_memory(Path(f"/proc/{os.getpid()}")) is None or allowed is not None
