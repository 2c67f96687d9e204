"""What of a user's result is an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from chunkdl.errors import PackingError


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
            raise PackingError(f"the SmallChunk is not an array: {error}; make it one") from error
    elif hasattr(data, "__array_interface__") or isinstance(data, int | float | np.generic):
        array = np.asarray(data)
    else:
        return None
    if array.dtype.kind not in "biufc":
        return None
    # Tensors have only the byte order of the machine.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
