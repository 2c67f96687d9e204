"""BigChunk, SmallChunk and Batch as the user sees them."""

from __future__ import annotations

from typing import Any

from chunkdl.dataset.patients import Patient


class BigChunk:
    """A large region of one patient, as a user's hooks see it.

    Args:
        data: the region, usually an array (height, width, 3) uint8.
        dict_info_of_bigchunk: facts that the loader adds.
        patient: the patient that it belongs to.
    """

    def __init__(self, data: Any, dict_info_of_bigchunk: dict[str, Any], patient: Patient) -> None:
        self.data = data
        self.dict_info_of_bigchunk = dict_info_of_bigchunk
        self.patient = patient


class SmallChunk:
    """One crop of a BigChunk: the training example.

    Args:
        data: the crop, or what the user's class made. In the SmallChunks that `LightDL.get()`
            returns it is None for the built-in classes, because the pixels are in the batch,
            unless `tfms` ran in the training process.
        dict_info_of_smallchunk: x, y (level-0 pixels of the top-left corner), level, mpp,
            tissue_fraction, call; and what annotations say of it, where the stream looks at them.
        dict_info_of_bigchunk: slide (path) and bigchunk (ordinal).
        patient: the patient that it belongs to.
    """

    def __init__(
        self,
        data: Any,
        dict_info_of_smallchunk: dict[str, Any],
        dict_info_of_bigchunk: dict[str, Any],
        patient: Patient,
    ) -> None:
        self.data = data
        self.dict_info_of_smallchunk = dict_info_of_smallchunk
        self.dict_info_of_bigchunk = dict_info_of_bigchunk
        self.patient = patient
