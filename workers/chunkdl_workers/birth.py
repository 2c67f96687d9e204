"""The first thing that any program of chunkdl does: it sees to where it imports from.

Until then only the standard library may be imported. Nothing can hide that: an interpreter that was
started so has neither the working folder nor PYTHONPATH on its path.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def run() -> None:
    """Run the program that the command line names."""
    _, _, module, descriptor, *arguments = sys.argv
    with open(int(descriptor), "rb", buffering=0) as file:
        # The place in the file may be shared with others that were told the same.
        told = json.loads(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))
    # What is imported stays. To look for garbage in it takes a fifth of the start, and then as much
    # of each long look that follows.
    gc.disable()
    sys.path[:] = told["imports"]["first"]
    _take("chunkdl", told["imports"]["library"])
    from chunkdl.system.own_imports import remember_path
    from chunkdl.transport import child_imports
    from chunkdl.transport.given import Given, remember

    given = Given.of(told)
    remember(given)
    remember_path(given.imports.first)
    program = import_module(module)
    gc.freeze()
    gc.enable()
    sys.path[:] = given.imports.then
    if given.imports.variable is not None:
        # For what the user's code starts.
        os.environ[child_imports.VARIABLE] = given.imports.variable
    sys.argv[:] = [module, *arguments]
    program.main()


def _take(package: str, folder: str) -> None:
    """Import a package from that folder and nowhere else, as the training has it."""
    spec = PathFinder.find_spec(package, [folder])
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} has no package {package} any more")
    sys.modules[package] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
