"""A minute in the life of a service whose consumers come, go, freeze and die."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service_soak import Soak


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_minute_of_anything_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Every batch is that of `LightDL`, once; the server does not grow; nothing is left behind."""
    soak = Soak(tmp_path, seed=1)
    soak.run(60)
    assert soak.acts > 60
    assert soak.problems() == []
