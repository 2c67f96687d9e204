"""Pixels as OpenSlide gives them: premultiplied ARGB, laid on a background."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from chunkdl.slides.slide import Pixels

OPAQUE = np.uint32(0xFF000000)


def composite(argb: npt.NDArray[np.uint32], background: Sequence[int], out: Pixels) -> None:
    """Lay premultiplied pixels on a background: colour + (1 - alpha) · background.

    Args:
        argb: shape (height, width), premultiplied native-endian ARGB, as OpenSlide gives it.
        background: RGB of the background.
        out: shape (height, width, 3), uint8; receives the result, rounded.
    """
    for channel, shift in enumerate((16, 8, 0)):
        out[..., channel] = byte_of(argb, shift)
    if argb.min(initial=OPAQUE) >= OPAQUE:
        return
    shown = 255 - byte_of(argb, 24).astype(np.uint16)
    for channel, value in enumerate(background):
        out[..., channel] += ((shown * value + 127) // 255).astype(np.uint8)


def byte_of(argb: npt.NDArray[np.uint32], shift: int) -> npt.NDArray[np.uint8]:
    """One byte of every number, as a view; `shift` counts from the lowest bit."""
    position = shift // 8 if sys.byteorder == "little" else 3 - shift // 8
    return argb.view(np.uint8).reshape(*argb.shape, 4)[..., position]
