"""The tissue mask of a slide: found on a thumbnail or given, asked for the share in boxes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError, SlideError
from chunkdl.slides.slide import AS_STORED, PixelRule, Scanned, Slide, SlideInfo
from chunkdl.slides.tissue.box_shares import BoxShares
from chunkdl.slides.tissue.detectors.detector import (
    Cells,
    Scale,
    TissueDetector,
    find_tissue,
)
from chunkdl.slides.tissue.thumbnail import (
    MOST_CELLS_A_SIDE,
    cells_under,
    read_thumbnail,
    thumbnail_plan,
)

_ASPECT_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class TissueMask:
    """Where the tissue of a slide is.

    Attributes:
        cells: shape (h, w), bool; True is tissue. All cells are of equal size.
        width0, height0: the level-0 pixels that the cells cover exactly, so a cell is width0 / w
            by height0 / h level-0 pixels.
    """

    cells: Cells
    width0: int
    height0: int

    def __post_init__(self) -> None:
        if self.cells.dtype != np.bool_ or self.cells.ndim != 2 or self.cells.size == 0:
            raise ConfigError(
                f"a tissue mask needs a 2-D bool array with cells, not {self.cells.dtype} of "
                f"shape {self.cells.shape}"
            )
        if self.width0 < 1 or self.height0 < 1:
            raise ConfigError(f"a tissue mask covers {self.width0}x{self.height0} level-0 pixels")

    @property
    def nbytes(self) -> int:
        """Memory of the cells, bytes."""
        return self.cells.nbytes

    def fraction(
        self,
        x0: npt.ArrayLike,
        y0: npt.ArrayLike,
        x1: npt.ArrayLike,
        y1: npt.ArrayLike,
    ) -> npt.NDArray[np.float32]:
        """The exact share of tissue, by area, in every box [x0, x1) x [y0, y1).

        Boxes are clipped to the slide first; one that is empty then has 0. Shares below 1e-7 are
        indistinguishable from rounding and given as 0.

        Args:
            x0, x1: left and right ends, shape (m,), level-0 pixels.
            y0, y1: upper and lower ends, shape (n,), level-0 pixels.

        Returns:
            Shape (n, m), float32, 0 to 1: entry (j, i) is of the box of y0[j], y1[j], x0[i],
            x1[i]. Besides it, memory is taken for a few million numbers and 4 bytes per cell.
        """
        left, upper, right, lower = (np.asarray(ends, np.float64) for ends in (x0, y0, x1, y1))
        return self.shares(self.width0, self.height0).outer(left, upper, right, lower)

    def shares(self, width0: float, height0: float) -> BoxShares:
        """The same for boxes up to that size, level-0 pixels, with a table that is made once."""
        return BoxShares(self.cells, self.width0, self.height0, width0, height0)


def compute_mask(
    slide: Slide,
    detector: TissueDetector,
    mpp: float | tuple[float, float] | None = None,
) -> TissueMask:
    """Detect the tissue of a slide on a thumbnail of about 8 microns per pixel.

    The thumbnail is read from the coarsest level that is at least that fine, and area-averaged
    from it where that level is finer; 16 level-0 pixels stand for 8 microns where the resolution
    is unknown. It has at most 4096 pixels on the longer side. Levels of any size are read in
    blocks along the file's tiles, so that memory stays at the thumbnail and some 100 MB. Of a
    level of more than `MOST_READ_PX` pixels one tile in k x k is read and stands for its
    neighbours.

    What was never scanned is not tissue. A tile that cannot be read is made from a finer level;
    where none can be read its cells are no tissue either. Both are counted in `slide.gaps`.

    Args:
        slide: an open slide.
        detector: is called once, with the whole thumbnail.
        mpp: microns per level-0 pixel, instead of what the slide says.

    Raises:
        SlideError: nothing of the slide can be read, or the detector needs a resolution that it
            does not have.
        ConfigError: the detector gave no bool array of the thumbnail's shape.
        HookError: a detector of the user raised.
    """
    info = slide.info
    plan = thumbnail_plan(info, mpp)
    thumbnail, unknown = read_thumbnail(slide, plan)
    tissue = find_tissue(detector, thumbnail, _scale(info, thumbnail.shape, mpp))
    for box in unknown:
        tissue[cells_under(box, info.levels[plan.level], tissue.shape)] = False
    mask = TissueMask(tissue, info.levels[0].width, info.levels[0].height)
    return within(mask, slide.scanned())


def _scale(
    info: SlideInfo, shape: tuple[int, ...], mpp: float | tuple[float, float] | None
) -> Scale:
    """How large the pixels are of a thumbnail of that shape."""
    across, down = info.levels[0].width / shape[1], info.levels[0].height / shape[0]
    given = info.mpp if mpp is None else mpp
    if given is None:
        return Scale(across, down, None, info.path)
    both = (given, given) if isinstance(given, int | float) else given
    return Scale(across, down, (across * both[0] + down * both[1]) / 2, info.path)


def mask_settings(
    info: SlideInfo, mpp: float | tuple[float, float] | None, rule: PixelRule = AS_STORED
) -> str:
    """All that the mask of a slide depends on beside its file and the detector, for a cache key."""
    plan = thumbnail_plan(info, mpp)
    how = f"level {plan.level} side {plan.side} stride {plan.stride}"
    return f"{info.reader} {mpp} {how} {rule}"


def within(mask: TissueMask, scanned: Scanned | None) -> TissueMask:
    """The mask without what was never scanned; its cells become smaller where that needs it.

    A cell is scanned where its centre is.
    """
    if scanned is None:
        return mask
    rows, columns = (
        _divided(cells, mask_length / side)
        for cells, mask_length, side in (
            (mask.cells.shape[0], mask.height0, scanned.cell_height),
            (mask.cells.shape[1], mask.width0, scanned.cell_width),
        )
    )
    down = ((np.arange(rows) + 0.5) * (mask.height0 / rows) / scanned.cell_height).astype(np.intp)
    across = ((np.arange(columns) + 0.5) * (mask.width0 / columns) / scanned.cell_width).astype(
        np.intp
    )
    down = np.minimum(down, scanned.cells.shape[0] - 1)
    across = np.minimum(across, scanned.cells.shape[1] - 1)
    cells = mask.cells.repeat(rows // mask.cells.shape[0], axis=0)
    cells = cells.repeat(columns // mask.cells.shape[1], axis=1)
    return TissueMask(cells & scanned.cells[down[:, None], across], mask.width0, mask.height0)


def _divided(cells: int, wanted: float) -> int:
    """A multiple of `cells` of about `wanted`, so that each cell is cut into equal parts."""
    most = max(1, MOST_CELLS_A_SIDE // cells)
    return cells * min(most, max(1, math.ceil(wanted / cells)))


def mask_from(
    given: npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | str | os.PathLike[str],
    info: SlideInfo,
) -> TissueMask:
    """The mask that the user gives for a slide; it covers the whole of level 0.

    Args:
        given: a 2-D array of bool or uint8, or the path of an image file; what is not 0 (in any
            colour channel; alpha does not count) is tissue.
        info: the slide.

    Raises:
        SlideError: it is no such array or image, the image is larger than Pillow's
            `Image.MAX_IMAGE_PIXELS`, or its aspect ratio is more than 5 % off the slide's.
    """
    source = "the given tissue mask"
    if isinstance(given, str | os.PathLike):
        source = f"tissue mask {os.fspath(given)}"
        values = _read_image(os.fspath(given), info)
    else:
        values = np.asarray(given)
    if values.ndim != 2 or values.size == 0 or values.dtype not in (np.bool_, np.uint8):
        raise SlideError(
            f"{source} must be a 2-D array of bool or uint8, not {values.dtype} of shape "
            f"{values.shape}",
            slide=info.path,
        )
    height, width = values.shape
    width0, height0 = info.levels[0].width, info.levels[0].height
    aspect = (width * height0) / (height * width0)
    if not 1 / (1 + _ASPECT_TOLERANCE) <= aspect <= 1 + _ASPECT_TOLERANCE:
        raise SlideError(
            f"{source} has {width}x{height} pixels and the slide {width0}x{height0}: the aspect "
            f"ratios differ by more than 5 %; a mask must cover the whole slide",
            slide=info.path,
        )
    return TissueMask(values != 0, width0, height0)


def whole_slide_mask(info: SlideInfo) -> TissueMask:
    """The mask of a slide that is all tissue, for those who want no detection."""
    return TissueMask(np.ones((1, 1), np.bool_), info.levels[0].width, info.levels[0].height)


def _read_image(path: str, info: SlideInfo) -> npt.NDArray[np.bool_]:
    # Imported here because few processes ever read a mask from an image file.
    from PIL import Image

    try:
        with Image.open(path) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise SlideError(
                    f"tissue mask {path} has {image.width}x{image.height} pixels, more than the "
                    f"{limit} that Pillow allows; make it smaller, 8 microns per pixel are enough",
                    slide=info.path,
                )
            colours = [band for band in image.getbands() if band != "A"]
            values = np.asarray(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SlideError(
            f"tissue mask {path} has more pixels than Pillow allows ({error}); make it smaller, "
            f"8 microns per pixel are enough",
            slide=info.path,
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SlideError(f"tissue mask {path} cannot be read: {error}", slide=info.path) from error
    if values.ndim == 3:
        return np.asarray(values[:, :, : len(colours)].any(axis=2))
    return np.asarray(values != 0)
