"""Nothing in here starts a process or takes memory of its own, so nothing is looked for."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Instead of the search through all processes after each of hundreds of quick tests."""
