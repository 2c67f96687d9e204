"""What `from pydmed.X import *` brought into PyDmed's programs beside the module's own names.

PyDmed's modules have no `__all__`, so a star import of one gives what the module itself imports,
and its programs live on that: `np`, `random`, `time`, `plt`, `torch`. Each module here offers the
same names, for this and nothing else. They are imported when they are asked for, so importing this
package, or single names of it, costs nothing; a star import asks for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from chunkdl.errors import ConfigError

MULTIPROC: Final = (
    *("np", "plt", "os", "sys", "psutil", "Path", "re", "time", "random", "mp", "ABC"),
    *("abstractmethod", "openslide", "torch", "torchvision", "models", "Process", "Queue"),
)
_OF_MULTIPROC: Final = ("poplast_from_queue", "set_nicemax", "terminaterecursively")
LIGHTDL: Final = (*MULTIPROC, *_OF_MULTIPROC, "subprocess", "pydmed")
_OF_LIGHTDL: Final = (
    *("BigChunk", "BigChunkLoader", "LightDL", "SmallChunk", "SmallChunkCollector"),
    *("PYDMEDRESERVED_DLRETURNEDLASTINSTANCE", "PYDMEDRESERVED_HALTDL", "EXHAUSTED"),
    "get_default_constglobinf",
)
EXTENSIONS_DL: Final = (*LIGHTDL, *_OF_LIGHTDL, "math", "copy")
EXTENSIONS_WSI: Final = (*EXTENSIONS_DL, "datetime")
_COMMON: Final = (
    "np",
    "os",
    "sys",
    "math",
    "Path",
    "re",
    "time",
    "random",
    "mp",
    "Process",
    "Queue",
)
DATA: Final = (*_COMMON, "copy", "pydmed")
MINIMATH: Final = ("np", "math")
OUTPUT: Final = ("np", "plt", "sys", "os", "mp", "csv", "time")
STREAMCOLLECTOR: Final = (*_COMMON, "ABC", "abstractmethod", "openslide", "plt", "pydmed")

_WHERE: Final = {
    "ABC": ("abc", "ABC"),
    "Path": ("pathlib", "Path"),
    "Process": ("multiprocessing", "Process"),
    "Queue": ("multiprocessing", "Queue"),
    "abstractmethod": ("abc", "abstractmethod"),
    "datetime": ("datetime", "datetime"),
    "models": ("torchvision.models", None),
    "mp": ("multiprocessing", None),
    "np": ("numpy", None),
    "plt": ("matplotlib.pyplot", None),
    "pydmed": ("chunkdl.pydmed", None),
    **{name: ("chunkdl.pydmed.utils.multiproc", name) for name in _OF_MULTIPROC},
    **{name: ("chunkdl.pydmed.lightdl", name) for name in _OF_LIGHTDL},
}
"""Module, and the name in it, of what is not a module of its own name."""


class Missing:
    """Stands for a module that is not installed, until a program uses it.

    Args:
        name: under which the program knows it.
        why: it could not be imported.
    """

    def __init__(self, name: str, why: str) -> None:
        self._name = name
        self._why = why

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            # Python and pickle look for what a class may have; only the program's use is an error.
            raise AttributeError(attribute)
        raise ConfigError(
            f"{self._name}.{attribute} was used, but {self._name} cannot be imported "
            f"({self._why}); install it in this environment"
        )


def importer(module: str, names: tuple[str, ...]) -> Callable[[str], Any]:
    """The `__getattr__` of a module that offers PyDmed's names too.

    Args:
        module: its name.
        names: that it offers beside its own.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        where, inside = _WHERE.get(name, (name, None))
        try:
            found = import_module(where)
        except Exception as error:
            # A library that is broken, such as one of another version than torch, is as good as
            # none for a program that never uses it.
            return Missing(name, f"{type(error).__name__}: {error}")
        return found if inside is None else getattr(found, inside)

    return find
