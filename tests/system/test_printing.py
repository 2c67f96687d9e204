"""Text that every output takes."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import Failure, SlideError
from chunkdl.system.printing import file_name_bytes, printable


@given(text=st.text())
def test_text_in_unicode_stays_as_it_is(text: str) -> None:
    """Whatever it holds."""
    assert printable(text) == text


@given(name=st.binary(max_size=3_000))
def test_any_file_name_can_be_encoded_and_so_can_an_error_about_it(name: bytes) -> None:
    """The error's `slide` is the name as it was given."""
    slide = os.fsdecode(name)
    printable(slide).encode()
    error = SlideError(f"cannot open {slide}", slide=slide)
    str(error).encode()
    assert error.slide == slide
    there = Failure.of(error).to_error()
    assert isinstance(there, SlideError)
    assert there.slide == slide
    assert file_name_bytes(slide) == name


def test_what_no_file_can_be_called_has_bytes_all_the_same() -> None:
    """Users name patients as they like."""
    assert file_name_bytes("a\ud800b") == rb"a\ud800b"
