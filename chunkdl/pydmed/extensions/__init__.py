"""PyDmed's `extensions`: a loader that balances labels, and one that slides over whole images.

Imports its modules when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_MODULES = ("dl", "wsi")


def __getattr__(name: str) -> ModuleType:
    # PyDmed's programs import the package and then use its modules as attributes.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
