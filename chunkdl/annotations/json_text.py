"""JSON as programs write it, made into JSON."""

from __future__ import annotations

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
    places = [found.span() for found in _NO_JSON.finditer(data)]
    if not places:
        return data
    quotes = _quotes(data)
    starts = np.array([start for start, _ in places])
    # Behind an even number of quotes it is in no string.
    outside = np.searchsorted(quotes, starts) % 2 == 0
    parts: list[bytes] = []
    at = 0
    for (start, stop), is_outside in zip(places, outside.tolist(), strict=True):
        if is_outside:
            parts += (data[at:start], b"null")
            at = stop
    return b"".join([*parts, data[at:]])


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
