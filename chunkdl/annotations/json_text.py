"""JSON as programs write it, made into JSON."""

from __future__ import annotations

import io
import re

import msgspec
import numpy as np
import numpy.typing as npt

BAD_JSON = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What decoders raise: no JSON, or not of this form; nested too deep; no UTF-8."""
_NO_JSON = re.compile(rb"-?\b(?:NaN|Infinity)\b")
_QUOTE, _BACKSLASH = b'"\\'


def strict_json(data: bytes) -> bytes:
    """The text with null for NaN and Infinity, which JSON does not have and programs write.

    Names in which these words are stay as they are. Where there is nothing to change, it is the
    same object.
    """
    found = (match.span() for match in _NO_JSON.finditer(data))
    places = np.fromiter(found, np.dtype((np.int64, 2)))
    if not len(places):
        return data
    # Behind an even number of quotes it is in no string.
    outside = places[np.searchsorted(_quotes(data), places[:, 0]) % 2 == 0]
    text = io.BytesIO()
    at = 0
    for start, stop in outside.tolist():
        text.write(data[at:start])
        text.write(b"null")
        at = stop
    text.write(data[at:])
    return text.getvalue()


def _quotes(data: bytes) -> npt.NDArray[np.int64]:
    """Where strings begin and end."""
    found = np.flatnonzero(np.frombuffer(data, np.uint8) == _QUOTE)
    behind = np.frombuffer(data, np.uint8)[np.maximum(found - 1, 0)] == _BACKSLASH
    inner = []
    for index in np.flatnonzero(behind).tolist():
        end = int(found[index])
        start = end
        while start and data[start - 1] == _BACKSLASH:
            start -= 1
        # A backslash before a backslash is a letter.
        if (end - start) % 2:
            inner.append(index)
    return np.delete(found, inner)
