"""What the engine gives to a user's collector class: the plan's facts and the notes.

Each object serves the SmallChunks of one BigChunk. Nothing of it knows slides: a collector starts
without the readers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from chunkdl.engine.config import StreamConfig
from chunkdl.errors import ConfigError
from chunkdl.patches.hooks import Place
from chunkdl.patches.patient_copies import Changes
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.transport.memory.layouts import Array
from chunkdl.transport.memory.notes import note_of


class CollectorTools:
    """For the SmallChunks of one BigChunk.

    Args:
        config: of the stream.
        ordinal, attempt: which BigChunk.
        first: the call of the plan with which this attempt began.
        records: of the plan's positions, None where the loader did not look at the plan.
        by_place: every SmallChunk has to be taken at its `place`.
        checkpoint, status: take the bytes of a note.
        changes: how what a hook returned as its patient differs from the dataset's.
        log: takes lines for the log of the training process.
    """

    def __init__(
        self,
        config: StreamConfig,
        ordinal: int,
        attempt: int,
        first: int,
        records: Array | None,
        by_place: bool,
        changes: Callable[[Any], Changes | None],
        checkpoint: Callable[[bytes], None],
        status: Callable[[bytes], None],
        log: Callable[[str], None],
    ) -> None:
        self._config = config
        self._ordinal = ordinal
        self._attempt = attempt
        self.first = first
        """The call of the plan with which this attempt began."""
        self._records = records
        self._by_place = by_place
        self._placed = -1
        self.changes = changes
        """How what a hook returned as its patient differs from the dataset's; None: in nothing."""
        self._send_checkpoint = checkpoint
        self._send_status = status
        self.log = log
        self.call = 0
        """The call of the hook that is running."""
        self._rng: tuple[int, np.random.Generator] | None = None

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers for this call."""
        if self._rng is None or self._rng[0] != self.call:
            rng = generator(
                self._config.seed,
                Purpose.SMALLCHUNK,
                self._ordinal,
                self._attempt,
                self.first + self.call,
            )
            self._rng = self.call, rng
        return self._rng[1]

    @property
    def place(self) -> Place:
        """The plan's place for this call."""
        if self._records is None:
            raise ConfigError(
                "there is no place in the plan for this SmallChunk: its loader used neither "
                "read_window nor positions"
            )
        self._placed = self.call
        record = self._records[(self.first + self.call) % len(self._records)]
        x, y, _, level, _, _, _, mpp, fraction, left, top = record.tolist()
        return Place(x, y, level, mpp, fraction, left, top, self._config.smallchunk_px)

    def check_place(self) -> None:
        """See that the SmallChunk of this call was taken where the plan says, as far as it must be.

        Raises:
            ConfigError: nobody has asked for the place.
        """
        if self._by_place and self._placed != self.call:
            raise ConfigError(
                "a SmallChunk was made without a look at self.place, so it has not passed "
                "pixel_filter; take it at self.place, or let your loader take it at one of its "
                "positions, or leave pixel_filter out and filter in your class"
            )

    def set_checkpoint(self, checkpoint: Any) -> None:
        """Leave a checkpoint."""
        self._send_checkpoint(note_of(checkpoint, "a checkpoint"))

    def set_status(self, status: Any) -> None:
        """Set the status."""
        self._send_status(note_of(status, "a status"))
