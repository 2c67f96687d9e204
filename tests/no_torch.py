"""A process in which torch is not installed, as far as its imports can tell.

It starts in a quarter of the time: programs of the tests that need no tensors begin so.
"""

from __future__ import annotations

import sys


class NotInstalled:
    """Finds no torch."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse what is not installed."""
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def have_no_torch() -> None:
    """From here on its import fails in this process."""
    assert "torch" not in sys.modules
    sys.meta_path.insert(0, NotInstalled())
