"""The built-in loader and collector, written like two classes of a user.

`LightDL` recognises them and does the same work directly (`load_bigchunk.py`, `crop_rows.py` in
`engine/work`). A subclass, or a copy of this file, runs as hooks and gives the same stream.
"""

from __future__ import annotations

from typing import Any

from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.patches.hooks import BigChunkLoader, SmallChunkCollector


class TissueBigChunkLoader(BigChunkLoader):
    """Reads the window of the plan: every position with tissue is equally likely."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> BigChunk:
        """The part of the window that the SmallChunks of the plan need."""
        return BigChunk(self.read_window(), dict(self.described), self.patient)


class TissueSmallChunkCollector(SmallChunkCollector):
    """Crops the SmallChunks of the plan."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """The SmallChunk at the place of this call."""
        place = self.place
        info = {
            "x": place.x,
            "y": place.y,
            "level": place.level,
            "mpp": place.mpp,
            "tissue_fraction": place.tissue_fraction,
        }
        crop = bigchunk.data.crop(place.left, place.top, place.side_px)
        return SmallChunk(crop, info, bigchunk.dict_info_of_bigchunk, self.patient)
