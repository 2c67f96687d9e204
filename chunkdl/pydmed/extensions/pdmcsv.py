"""What a model says about each tile of an image, as rows of text, and these as a picture.

PyDmed's programs import these names from `extensions.wsi`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError, DatasetError
from chunkdl.patches.chunks import SmallChunk

RasterPoints = tuple[list[float], list[float], list[Any]]
"""x and y of points on a raster, and the values of each point, one per channel."""


def Tensor3DtoPdmcsvrow(np_input: Any, smalchunk_input: SmallChunk) -> str:  # noqa: N802
    """A row of a pdmcsv file: what was found out about one tile of a `SlidingWindowDL`.

    The columns are y, x, H, W, level, kernel size and downsample of the level, c, h, w, and the
    c·h·w values.

    Args:
        np_input: array or tensor of shape (c, h, w).
        smalchunk_input: the tile; the name is PyDmed's.

    Raises:
        ConfigError: the shape is another.
    """
    shape = tuple(np_input.shape)
    if len(shape) != 3:
        raise ConfigError(f"the values of a tile have the shape {shape}, not (c, h, w)")
    small, strip = smalchunk_input.dict_info_of_smallchunk, smalchunk_input.dict_info_of_bigchunk
    place = [strip["y"], small["x"], strip["H"], strip["W"], small["patch_levelidx"]]
    numbers = [*place, small["kernel_size"], strip["downsample_of_patchlevel"], *shape]
    return ",".join(map(str, [*numbers, *np_input.reshape(-1).tolist()])) + "\n"


class DefaultWSIxyWHvaltoRasterPoints:
    """Lays the h × w values of a tile on a raster where they lie in the image."""

    def func_WSIxyWHval_to_rasterpoints(  # noqa: N802
        self,
        x: float,
        y: float,
        W: int,  # noqa: N803
        H: int,  # noqa: N803
        patch_levelidx: float,
        kernel_size: float,
        downsample_of_patchlevel: float,
        c: int,
        h: int,
        w: int,
        val: list[float],
    ) -> RasterPoints:
        """The points of one row of a pdmcsv file; a tile is h rows and w columns of the raster."""
        values = np.reshape(val, (c, h * w)).T
        down, across = np.mgrid[:h, :w]
        columns = (across + x * w / kernel_size).reshape(-1).tolist()
        rows = (down + y * h / kernel_size).reshape(-1).tolist()
        return columns, rows, list(values)


def pdmcsvtoarray(
    fname_pdmcsv: str,
    func_WSIxyWHval_to_rasterpoints: Callable[..., RasterPoints],  # noqa: N803
    scale_upsampleraster: float = 1.0,
) -> npt.NDArray[np.float64]:
    """The raster of a pdmcsv file, such as a heat map.

    Where two tiles have values for a cell the later row of the file counts; columns and rows of
    the raster that no tile reaches are interpolated linearly.

    Args:
        fname_pdmcsv: rows of `Tensor3DtoPdmcsvrow`, of one image.
        func_WSIxyWHval_to_rasterpoints: called with x, y, W, H, level, kernel_size, downsample, c,
            h, w and the list of values of each row; see `DefaultWSIxyWHvaltoRasterPoints`.
        scale_upsampleraster: cells of the result per cell of the raster, along each axis;
            interpolated linearly.

    Returns:
        float64 (rows, columns, c); NaN where a value is None or unknown.

    Raises:
        DatasetError: the file has no rows, or one that is not a row of numbers.
        ConfigError: the scale is not above 0.
    """
    if not scale_upsampleraster > 0:
        raise ConfigError(f"scale_upsampleraster={scale_upsampleraster} must be above 0")
    cells: dict[tuple[int, int], Any] = {}
    with open(fname_pdmcsv, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            for x, y, value in zip(
                *_points(line, f"{fname_pdmcsv}, line {number}", func_WSIxyWHval_to_rasterpoints),
                strict=True,
            ):
                cells[math.floor(y), math.floor(x)] = value
    if not cells:
        raise DatasetError(f"{fname_pdmcsv} has no rows, so there is nothing to show")
    rows, columns = (sorted({cell[axis] for cell in cells}) for axis in (0, 1))
    known = np.full((len(rows), len(columns), np.size(next(iter(cells.values())))), np.nan)
    row_at, column_at = ({name: at for at, name in enumerate(names)} for names in (rows, columns))
    for (row, column), value in cells.items():
        known[row_at[row], column_at[column]] = value
    stretched = _stretched(known, rows, scale_upsampleraster)
    turned = _stretched(stretched.swapaxes(0, 1), columns, scale_upsampleraster)
    return np.ascontiguousarray(turned.swapaxes(0, 1))


def _points(line: str, where: str, to_raster: Callable[..., RasterPoints]) -> RasterPoints:
    """The raster points of one row."""
    if not line.strip():
        return [], [], []
    try:
        y, x, height, width, level, kernel_size, downsample, c, h, w, *values = (
            math.nan if "None" in text else float(text) for text in line.split(",")
        )
        shape = int(c), int(h), int(w)
    except ValueError as error:
        raise DatasetError(f"{where} is not a row of numbers of a pdmcsv file: {error}") from error
    if math.prod(shape) != len(values):
        raise DatasetError(
            f"{where} has {len(values)} values, which does not fit its shape {shape}"
        )
    facts = int(width), int(height), level, kernel_size, downsample
    return to_raster(x, y, *facts, *shape, values)


def _stretched(
    known: npt.NDArray[np.float64], places: list[int], scale: float
) -> npt.NDArray[np.float64]:
    """Values at known places of a raster's first axis, as all its cells, `scale` times as many."""
    cells = max(1, round((places[-1] + 1) * scale))
    at = (np.arange(cells) + 0.5) / scale - 0.5
    return np.apply_along_axis(lambda line: np.interp(at, places, line), 0, known)
