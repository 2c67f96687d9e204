"""The header facts of all slides of a dataset in one file, so that a start opens one and not all.

What is in it is found by the same keys as the files of single slides, so it is never out of date: a
slide that has changed has another key, and is looked for elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from chunkdl.system.kept_files import key_of, read_at_most, sealed, unsealed, write_whole
from chunkdl.system.printing import file_name_bytes
from chunkdl.system.steady_log import steady_logger

PACKED_FROM = 100
"""Slides; fewer have their files alone."""
MOST_BYTES = 2**27
"""Of a pack; what needs more has the files of single slides alone."""
MOST_PACKS = 50
"""In one folder; the oldest make way."""
_VERSION = b"chunkdl headers 1"
_DECODER = msgspec.msgpack.Decoder(dict[bytes, bytes])

log = steady_logger(__name__)


class HeaderPack:
    """The facts of one list of slides; used by one thread.

    Args:
        folder: of the cache.
        names: of the slides.
        about: what else the facts depend on.
    """

    def __init__(self, folder: Path, names: Sequence[str], about: Sequence[bytes]) -> None:
        self._key = key_of([_VERSION, *about, *map(file_name_bytes, names)])
        self._file = folder / f"{self._key.hex()}.headers"
        self._is_used = len(names) >= PACKED_FROM

    def read(self) -> dict[bytes, bytes]:
        """Encoded facts by the key of a slide; empty where there is nothing to be trusted."""
        if not self._is_used:
            return {}
        try:
            data = read_at_most(self._file, MOST_BYTES)
            return _DECODER.decode(unsealed(data, _VERSION, self._key))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be used, and is made again: %s", self._file, error)
            return {}

    def write(self, facts: Mapping[bytes, bytes]) -> None:
        """Keep encoded facts by the key of a slide.

        Raises:
            OSError: the folder cannot be used.
        """
        body = msgspec.msgpack.encode(facts)
        if not self._is_used or len(body) > MOST_BYTES - 2**10:
            return
        write_whole(self._file, sealed(_VERSION, self._key, body))
        packs = [(file.stat().st_mtime_ns, file) for file in self._file.parent.glob("*.headers")]
        for _, file in sorted(packs)[:-MOST_PACKS]:
            with suppress(FileNotFoundError):
                file.unlink()
