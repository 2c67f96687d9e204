"""Random numbers that belong to a row: a function of its key and of nothing else.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11) has no state: the
numbers of all rows are computed at once, in any order, by numpy or on the device of a batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import Array, Maths

Keys = npt.NDArray[np.uint64]
"""One a row, (B,)."""
Draws = npt.NDArray[np.float64]
"""Uniform numbers from 0 to below 1 in steps of 2**-32, (B, count)."""

ROUNDS = 10
WORD = 2**32
_LOW = WORD - 1
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(counter: tuple[Array, ...], key: tuple[Array, ...]) -> tuple[Array, ...]:
    """Four words of 32 bits for each counter and key.

    Args:
        counter: four arrays of int64, 0 to 2**32 - 1.
        key: two such arrays.

    Returns:
        Four arrays of int64, 0 to 2**32 - 1, as Random123 and CUDA have them.
    """
    one, two, three, four = counter
    first, second = key
    for _ in range(ROUNDS):
        # Products wrap around at 2**64, and the shift leaves their upper word in its lower half.
        left, right = one * _MULTIPLIERS[0], three * _MULTIPLIERS[1]
        upper_left, upper_right = left >> 32 & _LOW, right >> 32 & _LOW
        one, two, three, four = (
            upper_right ^ two ^ first,
            right & _LOW,
            upper_left ^ four ^ second,
            left & _LOW,
        )
        first, second = (first + _WEYL[0]) & _LOW, (second + _WEYL[1]) & _LOW
    return one, two, three, four


def uniforms(keys: Keys, operation: int, view: int, count: int) -> Draws:
    """Numbers of some rows, (B, count).

    Args:
        keys: of the rows.
        operation: its number in the list of operations.
        view: which of several views of the row.
        count: of numbers for each row.
    """
    blocks = np.arange(-(-count // 4), dtype=np.int64)[None, :]
    zero = np.zeros((len(keys), blocks.shape[1]), np.int64)
    low = (keys & np.uint64(_LOW)).astype(np.int64)[:, None]
    high = (keys >> np.uint64(32)).astype(np.int64)[:, None]
    words = philox((blocks + zero, zero + operation, zero + view, zero), (low, high))
    return np.stack(words, 2).reshape(len(keys), -1)[:, :count] / WORD


def normals(draws: Draws) -> Draws:
    """Standard normal numbers of an even number of uniform ones (Box and Muller)."""
    half = draws.shape[1] // 2
    radius = np.sqrt(-2 * np.log1p(-draws[:, :half]))
    angle = 2 * np.pi * draws[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)


def noise(maths: Maths, seeds: Draws, pixels: int) -> Array:
    """Standard normal numbers for the three colours of each pixel, on the device.

    Args:
        maths: of the device.
        seeds: (B, 2), of which each row has its own.
        pixels: of an image.

    Returns:
        float32 (B, 3, pixels).
    """
    words = maths.array(np.rint(seeds * WORD).astype(np.int64))
    place = maths.span(pixels)[None, :] + words[:, :1] * 0
    zero = place * 0
    found = philox((place, zero, zero, zero), (words[:, :1] + zero, words[:, 1:] + zero))
    one, two, three, four = (
        maths.float32(maths.float64(word) + 0.5) * (1 / WORD) for word in found
    )
    radius, other = (maths.sqrt(-2 * maths.log(part)) for part in (one, three))
    angle = 2 * np.pi
    return maths.stack(
        [
            radius * maths.cos(angle * two),
            radius * maths.sin(angle * two),
            other * maths.cos(angle * four),
        ],
        1,
    )
