"""From the name of a library of arrays to what makes columns with it."""

from __future__ import annotations

import gc
import sys

from chunkdl.arguments import choice
from chunkdl.arrays import ArrayKind, NumpyArrays
from chunkdl.errors import ConfigError


def array_kind(name: str, *, pin: bool | None) -> ArrayKind:
    """The library of that name.

    Args:
        name: "torch" or "numpy".
        pin: copy into page-locked memory; None: where CUDA is there.

    Raises:
        ConfigError: there is none of that name, it is not installed, or it cannot pin.
    """
    choice("arrays", name, ("torch", "numpy"))
    if name == "numpy":
        if pin:
            raise ConfigError('pin_memory is for arrays="torch"; numpy has no page-locked memory')
        return NumpyArrays()
    new = "torch" not in sys.modules
    try:
        from chunkdl.tensors import TorchArrays
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            'torch is not installed; install chunkdl[torch], or give arrays="numpy"'
        ) from error
    if new:
        # Its import leaves tracebacks in cycles, which hold the frames of who is making a loader.
        gc.collect()
    return TorchArrays(pin=pin)
