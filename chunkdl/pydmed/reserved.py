"""The two strings by which PyDmed's programs and its loader tell each other about the end."""

from __future__ import annotations

from typing import Final

PYDMEDRESERVED_HALTDL: Final = "PYDMEDRESERVED_HALTDL"
"""What `schedule()` returns to end the loading."""

PYDMEDRESERVED_DLRETURNEDLASTINSTANCE: Final = "PYDMEDRESERVED_DL_RETURNED_LAST_INSTANCE"
"""What `LightDL.get()` returns when everything was delivered."""
