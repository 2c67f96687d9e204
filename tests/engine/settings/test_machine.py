"""Sizes as users write them, and what the machine gives."""

from __future__ import annotations

import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.engine.settings.checks import parse_bytes
from chunkdl.engine.settings.machine import available_memory, cores
from chunkdl.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (4 * 2**30, 2**32),
        ("4GiB", 2**32),
        ("4G", 2**32),
        ("4gb", 2**32),
        (" 512 MiB ", 2**29),
        ("1.5k", 1536),
        ("100", 100),
        ("100 B", 100),
        ("2TiB", 2**41),
    ],
)
def test_a_size_is_a_number_of_bytes_or_a_text(text: int | str, size: int) -> None:
    """In powers of 1024, in any case, with or without a space."""
    assert parse_bytes(text, "memory_limit") == size


@given(st.integers(1, 2**22), st.sampled_from(["", "K", "M", "G", "T"]))
def test_whole_numbers_of_any_unit_are_exact(number: int, unit: str) -> None:
    """Up to what a float holds exactly."""
    assert parse_bytes(f"{number}{unit}", "limit") == number * 1024 ** "_KMGT".index(unit or "_")


@pytest.mark.parametrize(
    "size", ["", "x", "4 GiB RAM", "-1", -1, 0, "0", "0GiB", True, None, "1e9", "4PB", "nan", [4]]
)
def test_what_is_no_size_is_refused_under_the_name_of_the_setting(size: object) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigError, match=r'^some_setting=.*"4GiB"'):
        parse_bytes(size, "some_setting")  # type: ignore[arg-type]


def test_cores_are_those_that_this_process_may_use() -> None:
    """Not those of the machine."""
    assert cores() == len(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_available_memory_is_no_more_than_the_system_has() -> None:
    """And more than nothing, or no test would run."""
    assert 0 < available_memory() <= psutil.virtual_memory().total
