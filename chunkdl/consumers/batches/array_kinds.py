"""From the name of a library of arrays to what makes columns with it.

torch is imported with this module where it is installed: at a later time its import could meet a
working folder that is gone, and would leave tracebacks that hold whoever makes a loader. Only the
processes of chunkdl do without: a module of the user's brings this along, and they make no batches.
"""

from __future__ import annotations

from collections.abc import Callable

from chunkdl.consumers.batches.arrays import ArrayKind, NumpyArrays
from chunkdl.engine.settings.checks import choice
from chunkdl.errors import ConfigError
from chunkdl.transport.given import is_child


def _torch_arrays() -> Callable[[bool | None], ArrayKind] | None:
    """What makes tensors; None: torch is not installed."""
    try:
        from chunkdl.consumers.batches.torch_batches import TorchArrays
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    return TorchArrays


if not is_child():
    _torch_arrays()


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
    torch_arrays = _torch_arrays()
    if torch_arrays is None:
        raise ConfigError('torch is not installed; install chunkdl[torch], or give arrays="numpy"')
    return torch_arrays(pin)
