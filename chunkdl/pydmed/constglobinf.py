"""PyDmed's settings, and what they mean here."""

from __future__ import annotations

from typing import Any


def get_default_constglobinf() -> dict[str, Any]:
    """PyDmed's settings with its defaults, in a fresh dict.

    `num_bigchunkloaders` patients are loaded at a time; each BigChunk gives
    `maxlength_queue_smallchunk` SmallChunks before it is replaced (100 where that is infinite);
    `core-assignment` restricts all processes to the named cores. `maxlength_queue_lightdl` and
    `interval_resched` have no effect. Other keys are the user's own and reach the hooks.
    """
    return {
        "num_bigchunkloaders": 10,
        "maxlength_queue_smallchunk": 100,
        "maxlength_queue_lightdl": 10000,
        "interval_resched": 10,
        "core-assignment": {"lightdl": None, "smallchunkloaders": None, "bigchunkloaders": None},
    }
