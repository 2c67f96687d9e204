"""What of a user's result is an array, and what is several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from chunkdl.errors import PackingError
from chunkdl.transport.row_format import MOST_COLUMNS, wrong_name


def is_array(data: object) -> bool:
    """Whether something is an array, a tensor, an image or a number."""
    if isinstance(data, np.ndarray | int | float | np.generic):
        return True
    tensor = hasattr(data, "detach") and hasattr(data, "numpy")
    return tensor or hasattr(data, "__array_interface__")


def array_of(data: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The array that an array, a tensor, an image or a number is; None for other objects.

    Raises:
        PackingError: it is a tensor of a kind that numpy does not have.
    """
    if isinstance(data, np.ndarray):
        array = data
    elif hasattr(data, "detach") and hasattr(data, "numpy"):
        try:
            array = data.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            raise PackingError(
                f"the data of the SmallChunk cannot become an array: {error}; return an array"
            ) from error
    elif hasattr(data, "__array_interface__") or isinstance(data, int | float | np.generic):
        array = np.asarray(data)
    else:
        return None
    if array.dtype.kind not in "biufc":
        return None
    # Tensors have only the byte order of the machine.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def row_of(data: Any) -> dict[str, np.ndarray[Any, np.dtype[Any]]] | None:
    """The arrays of a row by column: what is an array is the column "image", and a dict of arrays
    is a column each; None for other objects.

    Raises:
        PackingError: it is a tensor of a kind that numpy does not have, or a column cannot have its
            name.
    """
    if not isinstance(data, Mapping):
        array = array_of(data)
        return None if array is None else {"image": array}
    row = {name: array_of(value) for name, value in data.items()}
    arrays = {name: array for name, array in row.items() if array is not None}
    if not row or len(arrays) < len(row) or not all(isinstance(name, str) for name in row):
        return None
    check_names(arrays)
    return arrays


def check_names(row: Iterable[str]) -> None:
    """Refuse the names of a row's columns that a batch has other columns for; see `row_of`."""
    names = list(row)
    for name in names:
        if why := wrong_name(name):
            raise PackingError(f"the SmallChunk has a column that it cannot have: {why}; rename it")
    if len(names) > MOST_COLUMNS:
        raise PackingError(
            f"the SmallChunk has {len(names)} columns, but a row has at most {MOST_COLUMNS}"
        )
