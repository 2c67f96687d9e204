"""The latest decoded tiles of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict

from chunkdl.slides.slide import Pixels

TileKey = tuple[int, int, int]
"""Number of the slide in this process, level, index of the tile."""


class TileCache:
    """The latest decoded tiles, at most `limit` bytes of them; slides of all threads share it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held = 0
        self._tiles: OrderedDict[TileKey, Pixels] = OrderedDict()

    def get(self, key: TileKey) -> Pixels | None:
        """The tile with that key, None where it is not held."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: TileKey, tile: Pixels) -> None:
        """Hold a tile that is not held; the ones that were not asked for longest go."""
        if tile.nbytes > self._limit:
            return
        with self._lock:
            self._tiles[key] = tile
            self._held += tile.nbytes
            while self._held > self._limit:
                _, dropped = self._tiles.popitem(last=False)
                self._held -= dropped.nbytes

    def forget(self, slide: int) -> None:
        """Drop the tiles of a slide."""
        with self._lock:
            for key in [key for key in self._tiles if key[0] == slide]:
                self._held -= self._tiles.pop(key).nbytes
