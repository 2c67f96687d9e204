"""PyDmed's names over the engine of chunkdl: change the import lines of a program, and run it.

::

    import chunkdl.pydmed as pydmed
    from chunkdl.pydmed.lightdl import *

Datasets that were pickled with PyDmed load behind `install_alias()`. What is different on purpose
is in docs/migrating-from-pydmed.md.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from chunkdl.pydmed.alias import install_alias as install_alias

_MODULES = ("extensions", "lightdl", "stat", "streamcollector", "utils")


def __getattr__(name: str) -> ModuleType:
    # PyDmed's programs import the package and then use its modules as attributes.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
