"""Which patient, and which of its slides, is BigChunk k: pure functions of seed and ordinal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from chunkdl.sampling.seeding import Purpose, generator


class UniformSchedule:
    """Patients in rounds: each once before any twice, in a fresh random order every round.

    Args:
        seed: of the stream.
        slides_of_patient: for each patient the indices of its slides; a patient without any has
            no turn.
    """

    def __init__(self, seed: int, slides_of_patient: Sequence[Sequence[int]]) -> None:
        self._seed = seed
        self._slides = [tuple(slides) for slides in slides_of_patient if slides]
        self._round = lru_cache(maxsize=4)(self._shuffled)

    def slide(self, ordinal: int, attempt: int = 0) -> int:
        """Index of the slide that BigChunk `ordinal` is read from.

        Args:
            ordinal: of the BigChunk.
            attempt: how often this BigChunk was substituted; a substitute is drawn uniformly,
                independent of everything else.
        """
        patients = len(self._slides)
        if attempt == 0:
            round_, place = divmod(ordinal, patients)
            patient = int(self._round(round_)[place])
        else:
            patient = int(
                generator(self._seed, Purpose.SUBSTITUTE, ordinal, attempt).integers(patients)
            )
        return slide_of(self._seed, self._slides[patient], ordinal, attempt)

    def _shuffled(self, round_: int) -> npt.NDArray[np.int64]:
        return generator(self._seed, Purpose.SCHEDULE, round_).permutation(len(self._slides))


def slide_of(seed: int, slides: Sequence[int], ordinal: int, attempt: int) -> int:
    """Which of the slides of its patient BigChunk `ordinal` is read from; there is at least one."""
    if len(slides) == 1:
        return slides[0]
    choice = generator(seed, Purpose.SLIDE, ordinal, attempt).integers(len(slides))
    return slides[int(choice)]
