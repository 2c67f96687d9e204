"""Text that every output takes."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from chunkdl.errors import SlideError
from chunkdl.printing import printable


@given(text=st.text())
def test_text_in_unicode_stays_as_it_is(text: str) -> None:
    """Whatever it holds."""
    assert printable(text) == text


@given(name=st.binary())
def test_any_file_name_can_be_encoded_and_so_can_an_error_about_it(name: bytes) -> None:
    """The error's `slide` is the name as it was given."""
    slide = os.fsdecode(name)
    printable(slide).encode()
    error = SlideError(f"cannot open {slide}", slide=slide)
    str(error).encode()
    assert error.slide == slide
