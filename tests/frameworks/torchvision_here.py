"""torchvision beside torch's CPU build; importing this module is importing it.

Its compiled operators are not there for this build: it then describes operators that nobody has
declared, and its import fails. So they are declared before. It lies in a folder of its own, which
is on the path only meanwhile: lightning takes whatever it finds for whole.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch.library import Library

FOLDER = Path(sys.prefix) / "torchvision"
IS_HERE = FOLDER.is_dir()

_library: Any = Library
_declared = _library("torchvision", "FRAGMENT")

if IS_HERE and "torchvision" not in sys.modules:
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.path.append(str(FOLDER))
    try:
        import torchvision  # noqa: F401
    finally:
        sys.path.remove(str(FOLDER))
