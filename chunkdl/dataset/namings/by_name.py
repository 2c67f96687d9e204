"""Namings by what they are called, as configuration files say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from chunkdl.dataset.namings.camelyon import Camelyon16, Camelyon17
from chunkdl.dataset.namings.cptac import Cptac
from chunkdl.dataset.namings.gtex import Gtex
from chunkdl.dataset.namings.idc import Idc
from chunkdl.dataset.namings.name_table import NameTable
from chunkdl.dataset.namings.naming import Naming
from chunkdl.dataset.namings.panda import Panda
from chunkdl.dataset.namings.pattern import NamePattern
from chunkdl.dataset.namings.tcga import Tcga
from chunkdl.errors import DatasetError

_KINDS: Mapping[str, type[Any]] = {
    "tcga": Tcga,
    "cptac": Cptac,
    "camelyon16": Camelyon16,
    "camelyon17": Camelyon17,
    "panda": Panda,
    "gtex": Gtex,
    "idc": Idc,
    "pattern": NamePattern,
    "table": NameTable,
}


def naming_of(given: str | Mapping[str, Any] | Naming) -> Naming:
    """The naming of a name, of a name with parameters, or one that is a naming already.

    ``"tcga"``, ``{"name": "tcga", "slides": "diagnostic"}``,
    ``{"name": "pattern", "pattern": "(?P<patient>.*)_.*"}``.

    Raises:
        DatasetError: there is none, or its parameters are wrong.
    """
    if not isinstance(given, str | Mapping):
        if not callable(getattr(given, "read", None)):
            raise DatasetError(
                f"naming={given!r:.80} is no naming; give one such as chunkdl.Tcga(), or one of "
                f"the names {', '.join(_KINDS)}"
            )
        return given
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    name = parameters.pop("name", None)
    if not isinstance(name, str) or name not in _KINDS:
        raise DatasetError(f"there is no naming {name!r:.80}; choose one of {', '.join(_KINDS)}")
    declared = [one for one in fields(_KINDS[name]) if one.init]
    names = [one.name for one in declared]
    if unknown := [key for key in parameters if key not in names]:
        raise DatasetError(
            f"the naming {name!r} has no parameter {unknown[0]!r:.80}; it has "
            f"{', '.join(names) or 'none'}"
        )
    needed = [one.name for one in declared if one.default is MISSING]
    if missing := [key for key in needed if key not in parameters]:
        raise DatasetError(f"the naming {name!r} needs the parameter {missing[0]!r}")
    naming: Naming = _KINDS[name](**parameters)
    return naming
