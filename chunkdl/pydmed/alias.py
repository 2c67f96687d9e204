"""PyDmed's own module names for this package, so that what was pickled under them can be loaded."""

from __future__ import annotations

import sys
from importlib import import_module

from chunkdl.errors import ConfigError

_MODULES = (
    *("extensions", "extensions.dl", "extensions.wsi", "lightdl", "stat", "streamcollector"),
    *("utils", "utils.data", "utils.minimath", "utils.multiproc", "utils.output"),
)


def install_alias() -> None:
    """From now on, in this process, `import pydmed` and all below it is this package.

    So `pickle.load` finds the classes of datasets that were pickled with PyDmed. A second call does
    nothing.

    Raises:
        ConfigError: PyDmed itself was imported already; its classes are others.
    """
    ours = import_module("chunkdl.pydmed")
    if sys.modules.get("pydmed", ours) is not ours:
        raise ConfigError(
            "this program has already imported PyDmed itself; call install_alias() before, and "
            "remove PyDmed's folder from sys.path"
        )
    sys.modules["pydmed"] = ours
    for name in _MODULES:
        sys.modules[f"pydmed.{name}"] = import_module(f"chunkdl.pydmed.{name}")
