"""CIE LAB and the stains of Ruifrok and Johnston, with the numbers that scikit-image has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from chunkdl.patches.arithmetic.maths import Array, Maths

Matrix = npt.NDArray[np.float64]

XYZ_OF_RGB: Matrix = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
"""Of linear sRGB (ITU-R BT.709)."""
RGB_OF_XYZ: Matrix = np.linalg.inv(XYZ_OF_RGB).astype(np.float64)
WHITE = (0.95047, 1.0, 1.08883)
"""D65, seen by the observer of 2 degrees."""

RGB_OF_HED: Matrix = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical densities of haematoxylin, eosin and DAB (Ruifrok and Johnston, 2001), a row each."""
HED_OF_RGB: Matrix = np.linalg.inv(RGB_OF_HED).astype(np.float64)


def mixed(matrix: Matrix, colours: Array) -> list[Array]:
    """Sums of the colours (B, 3, N), weighed by the rows of a matrix (3, 3), (B, N) each."""
    parts = [colours[:, index] for index in range(3)]
    return [
        parts[0] * float(row[0]) + parts[1] * float(row[1]) + parts[2] * float(row[2])
        for row in matrix
    ]


def lab_of(maths: Maths, rgb: Array) -> Array:
    """CIE LAB of sRGB.

    Args:
        maths: of the array.
        rgb: float32 (B, 3, N), 0 to 1.

    Returns:
        The same shape: L from 0 to 100, a and b about -128 to 127.
    """
    linear = maths.where(
        rgb > 0.04045, maths.power((maths.clip(rgb, 0, None) + 0.055) / 1.055, 2.4), rgb / 12.92
    )
    x, y, z = (
        _bent(maths, part / white)
        for part, white in zip(mixed(XYZ_OF_RGB, linear), WHITE, strict=True)
    )
    return maths.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _bent(maths: Maths, part: Array) -> Array:
    roots = maths.power(maths.clip(part, 1e-6, None), 1 / 3)
    return maths.where(part > 0.008856, roots, 7.787 * part + 16 / 116)


def rgb_of(maths: Maths, lab: Array) -> Array:
    """sRGB of CIE LAB; colours that sRGB does not have are cut to 0 to 1.

    Args:
        maths: of the array.
        lab: float32 (B, 3, N).

    Returns:
        The same shape.
    """
    y = (lab[:, 0] + 16) / 116
    x, z = lab[:, 1] / 500 + y, maths.clip(y - lab[:, 2] / 200, 0, None)
    straight = [
        white * maths.where(part > 0.2068966, part * part * part, (part - 16 / 116) / 7.787)
        for part, white in zip((x, y, z), WHITE, strict=True)
    ]
    linear = maths.stack(mixed(RGB_OF_XYZ, maths.stack(straight, 1)), 1)
    curved = 1.055 * maths.power(maths.clip(linear, 1e-6, None), 1 / 2.4) - 0.055
    return maths.clip(maths.where(linear > 0.0031308, curved, linear * 12.92), 0, 1)
