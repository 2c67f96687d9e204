"""A minute in the life of a service whose consumers come, go, fork, freeze and die."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service_soak import Soak


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_minute_of_anything_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Every batch is that of `LightDL`, once; the server does not grow; nothing is left behind.

    Its engines are killed, all of it is stopped for longer than anybody may be silent, and
    strangers say anything to all of its sockets; nobody answers them.
    """
    soak = Soak(tmp_path, seed=1)
    soak.run(60)
    # A busy machine does less in a minute.
    assert soak.acts > 15
    assert soak.problems() == []
