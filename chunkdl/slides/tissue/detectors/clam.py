"""Tissue as CLAM segments it: by saturation, with large holes cut out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Checked, Scale, ScaledDetector
from chunkdl.slides.tissue.detectors.grey_otsu import otsu_bin
from chunkdl.slides.tissue.detectors.shapes import pieces, row_blocks, spread

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "clam": {},
    "clam-bwh-biopsy": {
        "sthresh": 15,
        "mthresh": 11,
        "close": 2,
        "a_t": 1,
        "a_h": 1,
        "max_n_holes": 2,
    },
    "clam-bwh-resection": {"sthresh": 15, "mthresh": 11},
    "clam-tcga": {"a_t": 16, "a_h": 4},
}
"""By name, what the presets of CLAM's repository (bwh_biopsy, bwh_resection, tcga) have different
from the defaults of its create_patches_fp.py."""


@dataclass(frozen=True, slots=True)
class Clam(ScaledDetector):
    """CLAM's segmentation (Lu et al., Nature BME 5, 2021), with the defaults of its program.

    Saturation is smoothed by a median, split by a threshold, and closed with a square. Of the
    pieces those with more than `a_t` reference patches of tissue stay. Of the holes in a piece the
    `max_n_holes` largest stay open, if they have more than `a_h` reference patches; others are
    filled. A reference patch is `ref_patch_size` level-0 pixels a side, so the scale of the
    thumbnail counts; with only a thumbnail, 16 level-0 pixels are taken for one.

    It differs from CLAM and from wsistream's detector of that name, which follow outlines with
    OpenCV, in this: areas are counted in pixels, where OpenCV takes the polygon through the centres
    of an outline's pixels; a hole ends where its pixels end, where OpenCV cuts out its rim as well;
    and tissue inside a hole is never cut out with it. On slides of the tests less than 1 % of the
    pixels differ from wsistream's. Its numbers of pixels (`mthresh`, `close`) are meant for CLAM's
    thumbnail of downsample 64; on ours, of about 8 microns a pixel, they smooth 2 to 4 times less.

    Attributes:
        sthresh: saturation above which a pixel is tissue, 0 to 255.
        mthresh: width of the median in pixels, odd, 1 to 99.
        close: side of the square in pixels, 0 to 255; 0 closes nothing.
        use_otsu: Otsu's threshold instead of `sthresh`.
        a_t, a_h: least tissue of a piece, and area of a hole, in reference patches, 0 to 10^6.
        max_n_holes: holes of a piece that may stay, 0 to 10^6.
        ref_patch_size: side of a reference patch, level-0 pixels, 1 to 10^5.

    Raises:
        ConfigError: a parameter is out of its bounds.
    """

    sthresh: int = 8
    mthresh: int = 7
    close: int = 4
    use_otsu: bool = False
    a_t: float = 100.0
    a_h: float = 16.0
    max_n_holes: int = 8
    ref_patch_size: int = 512

    name: ClassVar[str] = "clam"

    def __post_init__(self) -> None:
        checked = Checked(self)
        checked.whole("sthresh", 0, 255).whole("mthresh", 1, 99, odd=True).whole("close", 0, 255)
        checked.flag("use_otsu").number("a_t", 0, 10**6).number("a_h", 0, 10**6)
        checked.whole("max_n_holes", 0, 10**6).whole("ref_patch_size", 1, 10**5)

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`."""
        saturation = np.empty(rgb.shape[:2], np.uint8)
        for rows in row_blocks(rgb.shape):
            saturation[rows] = _saturation(rgb[rows])
        tissue = self._split(saturation)
        if self.close > 0:
            # The square of OpenCV: of an even one the larger half lies before the pixel.
            before, after = self.close // 2, (self.close - 1) // 2
            tissue = ~spread(~spread(tissue, before, after), before, after)
        patch = int(self.ref_patch_size**2 / (scale.across * scale.down))
        return self._large(tissue, self.a_t * patch, self.a_h * patch)

    def _split(self, saturation: npt.NDArray[np.uint8]) -> Cells:
        if not self.use_otsu:
            # The median is above a threshold where most of its pixels are.
            return _most(saturation > self.sthresh, self.mthresh)
        smooth = _median(saturation, self.mthresh)
        counts = np.zeros(256, np.intp)
        for rows in row_blocks(smooth.shape):
            counts += np.bincount(smooth[rows].ravel(), minlength=256)
        return np.asarray(smooth > otsu_bin(counts))

    def _large(self, tissue: Cells, least_tissue: float, least_hole: float) -> Cells:
        """The pieces with enough tissue, without their largest holes."""
        height, width = tissue.shape
        # A frame of glass, so that there is one outside, which is no hole.
        framed = np.zeros((height + 2, width + 2), np.bool_)
        framed[1:-1, 1:-1] = tissue
        gaps, gap_sizes = pieces(~framed, connectivity=1)
        above = _first_pixels(gaps, len(gap_sizes)) - framed.shape[1]
        outside = int(gaps[0, 0])
        stones, stone_sizes = pieces(framed, connectivity=2)
        kept = stone_sizes > least_tissue
        kept[0] = False
        # What lies above the first pixel of a hole is of the piece around it; the frame is in none.
        above[[0, outside]] = 0
        around = stones.ravel()[above]
        found = kept[stones]
        del stones
        open_ = self._open(around, gap_sizes, least_hole)
        # Other holes of kept pieces are filled.
        found |= (kept[around] & ~open_)[gaps]
        return np.ascontiguousarray(found[1:-1, 1:-1])

    def _open(
        self, around: npt.NDArray[np.int32], sizes: npt.NDArray[np.intp], least: float
    ) -> npt.NDArray[np.bool_]:
        """Which holes stay: by the pieces around them and their sizes."""
        order = np.lexsort((-sizes, around))
        starts = np.flatnonzero(np.diff(around[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
        stays = np.zeros(len(sizes), np.bool_)
        stays[order] = rank < self.max_n_holes
        return np.asarray(stays & (sizes > least))


def _first_pixels(labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.intp]:
    """Of each label, the place of its first pixel in reading order."""
    first = np.zeros(count, np.intp)
    width = labels.shape[1]
    for rows in reversed(list(row_blocks(labels.shape))):
        flat = labels[rows].ravel()[::-1]
        # Of several values for one place the last one stays.
        first[flat] = np.arange(rows.stop * width - 1, rows.start * width - 1, -1)
    return first


def _saturation(rgb: Pixels) -> npt.NDArray[np.uint8]:
    """HSV saturation in 255 steps, rounded as OpenCV does; 0 for black."""
    brightest = rgb.max(axis=2)
    chroma = (brightest - rgb.min(axis=2)).astype(np.int32)
    return np.asarray((chroma * _PER_VALUE[brightest] + 2**11) >> 12, np.uint8)


_PER_VALUE = np.concatenate(([0], np.rint(255 * 2**12 / np.arange(1, 256)))).astype(np.int32)
"""255 / value, in 4096ths."""


def _most(flags: Cells, width: int) -> Cells:
    """Which pixels have more than half of the square around them True; edges are repeated."""
    reach = width // 2
    found = np.empty_like(flags)
    for rows in row_blocks(flags.shape):
        block = _with_edges(flags, rows, reach).astype(np.int32)
        sums = np.zeros((block.shape[0] + 1, block.shape[1] + 1), np.int32)
        np.cumsum(block, axis=0, out=sums[1:, 1:])
        np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
        counts = (
            sums[width:, width:]
            - sums[:-width, width:]
            - sums[width:, :-width]
            + sums[:-width, :-width]
        )
        found[rows] = counts > width * width // 2
    return found


def _median(plane: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    # Imported here: see `pieces`.
    from skimage.filters.rank import median

    reach = width // 2
    found = np.empty_like(plane)
    square = np.ones((width, width), np.uint8)
    for rows in row_blocks(plane.shape):
        block = np.ascontiguousarray(_with_edges(plane, rows, reach))
        whole = median(block, square)  # type: ignore[no-untyped-call]
        found[rows] = whole[reach : reach + rows.stop - rows.start, reach : reach + plane.shape[1]]
    return found


def _with_edges(plane: npt.NDArray[Any], rows: slice, reach: int) -> npt.NDArray[Any]:
    """Rows of a plane with `reach` more on every side; outside it, its edges are repeated."""
    height, width = plane.shape
    down = np.clip(np.arange(rows.start - reach, rows.stop + reach), 0, height - 1)
    across = np.clip(np.arange(-reach, width + reach), 0, width - 1)
    return np.asarray(plane[down][:, across])
