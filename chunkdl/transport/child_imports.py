"""Where the programs of chunkdl import from: nothing of it is taken from the folder they run in.

A program is to find the modules that the user's classes were defined in, where the training finds
them. But what chunkdl itself and its libraries import must not be taken from a `random.py` that
happens to lie in the working folder, or beside the script.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from typing import Any, Self

from chunkdl.errors import ConfigError

VARIABLE = "PYTHONPATH"


@dataclass(frozen=True, slots=True)
class Imports:
    """What a program has to know to import as the training does.

    Attributes:
        library, workers: the folders that the packages `chunkdl` and `chunkdl_workers` lie in.
        first: `sys.path` while chunkdl and its libraries are imported: the standard library, then
            the training's in its order, the working folder last.
        then: `sys.path` from then on, while the user's modules are.
        variable: the environment's PYTHONPATH, for programs that the user's code starts; None:
            there is none.
    """

    library: str
    workers: str
    first: tuple[str, ...]
    then: tuple[str, ...]
    variable: str | None

    @classmethod
    def of_this_process(cls) -> Self:
        """Those of a program that this process starts.

        Raises:
            ConfigError: the package of the programs is not installed.
        """
        path = absolute(sys.path)
        standard = [entry for entry in path if is_standard(entry)]
        others = [entry for entry in path if entry not in standard]
        here = absolute([""])
        shadowed = is_shadowed(path[: path.index(standard[0])] if standard else path)
        return cls(
            library=(library := _folder_of("chunkdl", find_spec("chunkdl"))),
            workers=_folder_of("chunkdl_workers", _found_beside(library)),
            first=(*standard, *(e for e in others if e not in here), *here),
            # A module of the user's that has a name of the standard library is found as the
            # training has found it; else nothing hides the standard library.
            then=tuple(path) if shadowed else (*standard, *others),
            variable=os.environ.get(VARIABLE),
        )

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """What `told` made."""
        return cls(**{**told, "first": tuple(told["first"]), "then": tuple(told["then"])})

    def told(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def absolute(path: Iterable[str]) -> list[str]:
    """The entries of a `sys.path` as seen from here, each once; none for a folder that is gone."""
    entries = []
    for entry in path:
        try:
            entries.append(os.path.abspath(entry))
        except FileNotFoundError:
            continue  # relative to a working folder that was deleted
    return list(dict.fromkeys(entries))


def is_standard(entry: str) -> bool:
    """Whether an entry of `sys.path` is the standard library."""
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    of_python = os.path.basename(entry) in ("lib-dynload", archive)
    return of_python or entry == os.path.dirname(os.__file__)


def is_shadowed(before: Iterable[str]) -> bool:
    """Whether this process has a module of a standard name from one of these folders."""
    folders = set(before)
    for name in sys.stdlib_module_names & sys.modules.keys():
        file = getattr(sys.modules[name], "__file__", None)
        if isinstance(file, str):
            folder = os.path.dirname(os.path.abspath(file))
            if {folder, os.path.dirname(folder)} & folders:
                return True
    return False


def _found_beside(library: str) -> ModuleSpec | None:
    """The package of the programs that belongs to this library: as installed, or in a checkout."""
    beside = [library, os.path.join(library, "workers")]
    return PathFinder.find_spec("chunkdl_workers", beside) or find_spec("chunkdl_workers")


def _folder_of(package: str, spec: ModuleSpec | None) -> str:
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package {package} cannot be found; install chunkdl again")
    return os.path.dirname(os.path.abspath(next(iter(spec.submodule_search_locations))))
