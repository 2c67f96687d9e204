"""`from ... import *` gives what PyDmed's modules gave; importing alone brings nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

_DATA = "np os sys math Path re time random copy mp Process Queue pydmed"
_LIGHTDL = (
    "np plt os sys psutil Path re time random mp subprocess ABC abstractmethod openslide torch "
    "torchvision models Process Queue pydmed poplast_from_queue set_nicemax terminaterecursively "
    "PYDMEDRESERVED_HALTDL PYDMEDRESERVED_DLRETURNEDLASTINSTANCE get_default_constglobinf BigChunk "
    "SmallChunk BigChunkLoader SmallChunkCollector LightDL"
)
_COLLECTOR = (
    "np os sys math Path re time random mp openslide Process Queue ABC abstractmethod plt pydmed "
    "StreamWriter ProcessedPiece StreamCollector StatCollector Statistic"
)
NAMES = {
    "utils.data": f"{_DATA} Patient Record Dataset",
    "utils.minimath": "np math lcm multimode multiminority",
    "utils.multiproc": (
        "np plt os sys psutil Path re time random mp ABC abstractmethod openslide torch "
        "torchvision models Process Queue poplast_from_queue set_nicemax terminaterecursively"
    ),
    "utils.output": "np plt sys os mp csv time StreamWriter",
    "lightdl": _LIGHTDL,
    "extensions.dl": f"{_LIGHTDL} math copy LabelBalancedDL",
    "extensions.wsi": (
        f"{_LIGHTDL} math copy datetime default_func_patient_to_fnameimage Tensor3DtoPdmcsvrow "
        "pdmcsvtoarray DefaultWSIxyWHvaltoRasterPoints SlidingWindowSmallChunkCollector "
        "SlidingWindowBigChunkLoader SlidingWindowDL"
    ),
    "streamcollector": _COLLECTOR,
    "stat": _COLLECTOR,
}
"""The public names of each of PyDmed's modules, those that it imports included."""


def starred(module: str) -> dict[str, Any]:
    """What a star import of a module brings."""
    found: dict[str, Any] = {}
    exec(f"from chunkdl.pydmed.{module} import *", found)
    del found["__builtins__"]
    return found


@pytest.mark.parametrize("module", NAMES)
def test_a_star_import_gives_the_names_of_pydmed(module: str) -> None:
    """All of them, and none of chunkdl's besides but `EXHAUSTED` and a key."""
    found = starred(module)
    assert set(NAMES[module].split()) <= set(found)
    assert set(found) - set(NAMES[module].split()) <= {"EXHAUSTED", "KEY_OF_ORIGINAL_PATIENT"}


def test_the_names_are_the_modules_themselves() -> None:
    """Those that a program would import under that name."""
    found = starred("lightdl")
    assert found["np"] is import_module("numpy")
    assert found["torch"] is import_module("torch")
    assert found["Path"] is import_module("pathlib").Path
    assert found["pydmed"].lightdl.LightDL is found["LightDL"]
    assert starred("extensions.wsi")["datetime"] is import_module("datetime").datetime


def test_a_module_has_no_other_names() -> None:
    """A wrong name is an error as in any module."""
    with pytest.raises(ImportError, match="cannot import name 'LightDataLoader'"):
        exec("from chunkdl.pydmed.lightdl import LightDataLoader")


WITHOUT = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import chunkdl.pydmed.utils.multiproc
from chunkdl.pydmed.lightdl import LightDL
before = sorted(sys.modules)
from chunkdl.pydmed.lightdl import *
import copy, cloudpickle
told = []
for figure in (plt, copy.copy(plt), cloudpickle.loads(cloudpickle.dumps(plt))):
    try:
        figure.ioff()
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps([before, told, hasattr(plt, "__wrapped__")]))
"""


def test_what_is_not_installed_is_an_error_only_where_it_is_used() -> None:
    """The sentence names it and says what to do, in a worker too; without a star import neither it
    nor anything heavy is imported."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    before, told, wrapped = json.loads(done.stdout)
    assert not set(before) & {"torch", "torchvision", "matplotlib", "psutil", "openslide"}
    assert len(set(told)) == 1
    assert len(told) == 3
    assert told[0].startswith("ConfigError: plt.ioff was used, but plt cannot be imported (Module")
    assert told[0].endswith("install it in this environment")
    assert not wrapped
