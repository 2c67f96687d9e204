"""What detectors do to masks: closing gaps, and removing small pieces.

All work on 4096 x 4096 cells within a few times the memory of the mask and in linear time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from chunkdl.slides.tissue.detectors.detector import Cells

_BLOCK_PX = 2**20


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of an image, some at a time, so that what is computed for them stays small."""
    rows = max(1, _BLOCK_PX // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield slice(top, min(top + rows, shape[0]))


def close_gaps(tissue: Cells, gap: int) -> Cells:
    """Morphological closing with a square that bridges gaps of up to `gap` pixels."""
    reach = (gap + 1) // 2
    return ~grown(~grown(tissue, reach), reach)


def grown(tissue: Cells, reach: int) -> Cells:
    """Each True pixel made a square of True pixels that reaches `reach` to every side."""
    return spread(tissue, reach, reach)


def spread(tissue: Cells, before: int, after: int) -> Cells:
    """Which pixels have a True one among those from `before` in front of them to `after` behind
    them, in both directions; outside nothing is True."""
    down = _spread_along(tissue, before, after)
    return np.ascontiguousarray(_spread_along(down.T, before, after).T)


def _spread_along(tissue: Cells, before: int, after: int) -> Cells:
    """The same along the columns of one array: of each column, the rows."""
    found = np.ascontiguousarray(tissue)
    for reach, sign in ((before, 1), (after, -1)):
        done = 0
        while done < min(reach, len(found)):
            # What has spread by n cells spreads by up to n + 1 more in one step.
            step = min(reach - done, done + 1, len(found))
            wider = found.copy()
            if sign > 0:
                wider[step:] |= found[: len(found) - step]
            else:
                wider[: len(found) - step] |= found[step:]
            found, done = wider, done + step
    return found


def without_small_pieces(tissue: Cells, smallest: int, connectivity: int = 1) -> Cells:
    """`tissue` without its connected pieces of fewer than `smallest` pixels, in linear time."""
    labels, sizes = pieces(tissue, connectivity)
    keep = sizes >= smallest
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def pieces(tissue: Cells, connectivity: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """The connected pieces of a mask.

    Args:
        tissue: the mask.
        connectivity: 1: neighbours share a side; 2: also a corner.

    Returns:
        The number of the piece of each cell, 0 where there is none, and the sizes by number.
    """
    # Imported here because a process that only takes masks from the cache never needs it (0.3 s
    # and 40 MB for scipy).
    from skimage.measure import label

    labels = label(tissue, connectivity=connectivity)  # type: ignore[no-untyped-call]
    sizes = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.intp)
    for rows in row_blocks(labels.shape):
        sizes += np.bincount(labels[rows].ravel(), minlength=len(sizes))
    return labels, sizes
