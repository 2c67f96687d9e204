"""Rows of a heat map and the array of them: every value lies where its tile is in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError, DatasetError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.pydmed.extensions.pdmcsv import RasterPoints
from chunkdl.pydmed.extensions.wsi import (
    DefaultWSIxyWHvaltoRasterPoints,
    Tensor3DtoPdmcsvrow,
    pdmcsvtoarray,
)

KERNEL = 100
TO_RASTER = DefaultWSIxyWHvaltoRasterPoints().func_WSIxyWHval_to_rasterpoints


def tile(x: int, y: int, size: tuple[int, int] = (400, 300)) -> SmallChunk:
    """A tile of an image, as `SlidingWindowDL` describes it."""
    small = {"x": x, "y": 0, "patch_levelidx": 1, "kernel_size": KERNEL}
    strip = {"y": np.int64(y), "H": size[1], "W": size[0], "downsample_of_patchlevel": 4.0}
    return SmallChunk(None, small, strip, Patient(0, {}))


def whole_map(rows: int, columns: int, channels: int) -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(0)
    return generator.random((rows, columns, channels), dtype=np.float32)


def written(path: Path, values: npt.NDArray[np.float32], step: int, rows_of_tiles: Any) -> str:
    """The file of a map whose tiles have `step` × `step` cells, in an order of its own."""
    rows = [
        Tensor3DtoPdmcsvrow(
            torch.from_numpy(values[i : i + step, j : j + step]).permute(2, 0, 1),
            tile(j * KERNEL // step, i * KERNEL // step),
        )
        for i in rows_of_tiles
        for j in range(0, values.shape[1], step)
    ]
    path.write_text("".join(reversed(rows)) + "\n")
    return str(path)


def test_a_row_has_the_columns_that_pydmed_wrote() -> None:
    """y, x, H, W, level, kernel size, downsample, c, h, w, and the values channel by channel."""
    values = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    row = Tensor3DtoPdmcsvrow(values, tile(100, 200))
    assert row.endswith("\n")
    numbers = [float(text) for text in row.split(",")]
    assert numbers == [200, 100, 300, 400, 1, 100, 4, 2, 2, 3, *range(12)]
    assert Tensor3DtoPdmcsvrow(torch.from_numpy(values), tile(100, 200)) == row


@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_rows_of_all_tiles_make_the_map(tmp_path: Path, step: int) -> None:
    """Whatever their order, for one value per tile and for several, in every channel."""
    values = whole_map(3 * step, 4 * step, 2)
    path = written(tmp_path / "map.csv", values, step, range(0, 3 * step, step))
    array = pdmcsvtoarray(path, TO_RASTER)
    assert array.dtype == np.float64
    assert array.shape == values.shape
    assert np.array_equal(array, values)


def test_tiles_of_other_shapes_than_squares_lie_right(tmp_path: Path) -> None:
    """Two rows of three values each."""
    first, second = np.arange(6.0).reshape(1, 2, 3), np.arange(6.0, 12.0).reshape(1, 2, 3)
    path = tmp_path / "map.csv"
    path.write_text(
        Tensor3DtoPdmcsvrow(first, tile(0, 0)) + Tensor3DtoPdmcsvrow(second, tile(100, 0))
    )
    array = pdmcsvtoarray(str(path), TO_RASTER)
    assert array[:, :, 0].tolist() == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]


def test_a_missing_strip_moves_no_other(tmp_path: Path) -> None:
    """Its cells lie between those of its neighbours, and so do their values."""
    values = whole_map(3, 4, 1)
    array = pdmcsvtoarray(written(tmp_path / "map.csv", values, 1, (0, 2)), TO_RASTER)
    assert np.array_equal(array[[0, 2]], values[[0, 2]])
    assert np.allclose(array[1], (values[0] + values[2]) / 2)


@pytest.mark.parametrize("scale", [2.0, 2.5, 0.5])
def test_a_map_can_be_scaled(tmp_path: Path, scale: float) -> None:
    """Linearly between the middles of the cells, along both axes; a slope stays a slope."""
    down, across = np.mgrid[:6, :8].astype(np.float32)
    values = np.stack([2 * down + across, across], axis=2)
    path = written(tmp_path / "map.csv", values, 2, range(0, 6, 2))
    array = pdmcsvtoarray(path, TO_RASTER, scale_upsampleraster=scale)
    assert array.shape == (round(6 * scale), round(8 * scale), 2)
    y = np.clip((np.arange(array.shape[0]) + 0.5) / scale - 0.5, 0, 5)
    x = np.clip((np.arange(array.shape[1]) + 0.5) / scale - 0.5, 0, 7)
    assert np.allclose(array[:, :, 0], 2 * y[:, None] + x)
    assert np.allclose(array[:, :, 1], np.broadcast_to(x, array.shape[:2]))


def test_what_is_not_known_is_nan_and_spoils_nothing_else(tmp_path: Path) -> None:
    """A value that was written as None, beside others."""
    values = whole_map(3, 4, 1)
    path = Path(written(tmp_path / "map.csv", values, 1, range(3)))
    lines = path.read_text().splitlines()
    unknown = next(n for n, line in enumerate(lines) if line.startswith("100,200,"))
    lines[unknown] = lines[unknown].rpartition(",")[0] + ", None"
    path.write_text("\n".join(lines))
    array = pdmcsvtoarray(str(path), TO_RASTER)
    assert np.argwhere(np.isnan(array)).tolist() == [[1, 2, 0]]
    array[1, 2] = values[1, 2]
    assert np.array_equal(array, values)


def test_points_may_be_laid_by_a_function_of_the_user(tmp_path: Path) -> None:
    """It gets PyDmed's eleven arguments in their order."""
    seen: list[Any] = []

    def to_raster(*arguments: Any) -> RasterPoints:
        seen.append(arguments)
        return [1.7], [0.2], [[5.0]]

    path = tmp_path / "map.csv"
    path.write_text(Tensor3DtoPdmcsvrow(np.ones((1, 1, 1)), tile(300, 200)))
    assert pdmcsvtoarray(str(path), to_raster).shape == (1, 2, 1)
    assert seen == [(300, 200, 400, 300, 1, 100, 4, 1, 1, 1, [1.0])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("1,2,3\n", "line 1 is not a row of numbers"),
        ("0,0,9,9,0,9,1,1,1,1,x\n", "line 1 is not a row of numbers"),
        (
            "0,0,9,9,0,9,1,1,2,2,1,2,3\n",
            r"line 1 has 3 values, which does not fit its shape \(1, 2, 2\)",
        ),
    ],
    ids=["empty", "short", "text", "values"],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """And so are arguments that make no sense."""
    path = tmp_path / "map.csv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        pdmcsvtoarray(str(path), TO_RASTER)
    with pytest.raises(ConfigError, match="must be above 0"):
        pdmcsvtoarray(str(path), TO_RASTER, 0)
    with pytest.raises(ConfigError, match=r"the shape \(2, 2\), not \(c, h, w\)"):
        Tensor3DtoPdmcsvrow(np.ones((2, 2)), tile(0, 0))
