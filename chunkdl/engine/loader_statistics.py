"""What a loader has done, for people and for logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Self

from chunkdl.transport.protocol.engine_messages import Statistics

NOTHING_COUNTED = Statistics(0, 0, 0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0)
"""Of a service that is not there yet."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a service has counted, as it was last told.

    Attributes:
        counters: of the service.
        at_s: when it counted, by `time.monotonic`, or a little before; None: it has told nothing.
    """

    counters: Statistics = NOTHING_COUNTED
    at_s: float | None = None

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Of several services that feed one loop, whose batches have rows of each."""
        counters = [part.counters for part in parts]
        values = {
            name: sum(getattr(one, name) for one in counters)
            for name in Statistics.__struct_fields__
        }
        for name in ("batches", "smallchunks_per_bigchunk"):
            values[name] = max(getattr(one, name) for one in counters)
        times = [part.at_s for part in parts]
        known = [at_s for at_s in times if at_s is not None]
        return cls(Statistics(**values), min(known) if len(known) == len(times) else None)


def counted_together(before: Statistics, now: Statistics) -> Statistics:
    """What an engine and those before it have done; what was made anew counts again.

    Args:
        before: of those that are gone.
        now: of the one that runs.
    """
    return Statistics(
        before.batches + now.batches,
        before.rows + now.rows,
        before.bigchunks + now.bigchunks,
        before.decoded_px + now.decoded_px,
        before.target_px + now.target_px,
        before.delivered_px + now.delivered_px,
        before.read_s + now.read_s,
        before.substitutions + now.substitutions,
        # The next one finds the same slides.
        max(before.unusable_slides, now.unusable_slides),
        before.restarts + now.restarts,
        now.smallchunks_per_bigchunk or before.smallchunks_per_bigchunk,
        now.bigchunks_ready,
        now.batches_ready,
        now.slots_free,
        before.looked + now.looked,
        before.refused + now.refused,
    )


@dataclass(frozen=True, slots=True)
class MeanDiversity:
    """How different the rows of batches are, on average.

    Attributes:
        bigchunks: different BigChunks in a batch.
        patients: different patients in a batch.
        overlap: share of the pixels of a batch that another row of the same BigChunk shows too.
    """

    bigchunks: float = nan
    patients: float = nan
    overlap: float = nan


@dataclass(frozen=True, slots=True)
class LoaderStatistics:
    """What a loader has done since its service started.

    Attributes:
        batches, patches: sent to the training loop, which may not have taken the last few yet.
        patches_per_s: over the time since the first batch was asked for.
        wait_share: share of that time that the training loop waited for batches, 0 to 1.
        decoded_mpx: megapixels decoded from slide files.
        delivered_mpx: megapixels of SmallChunks sent.
        reuse: pixels of SmallChunks sent, divided by the target pixels of the BigChunks read that
            SmallChunks can show; 0 before anything was read.
        decoded_share: pixels decoded, divided by the same target pixels: about 4 where a level
            twice as fine is read, less where draws leave parts of the BigChunks out or loaders
            still have tiles; 0 before anything was read.
        smallchunks_per_bigchunk: n of the rotation.
        bigchunks_read: regions read.
        bigchunks_ready, batches_ready: in memory, waiting for their use.
        substitutions: regions replaced or left out because they could not be read.
        unusable_slides: slides left out.
        refused_share: share of the positions drawn for windows that the pixel filter refused, 0 to
            1; 0 without a filter. The log has it by slide.
        restarts: workers that died and were replaced.
        bigchunks_per_batch, patients_per_batch: different ones in a batch that this loader gave
            out, mean over every 32nd of them (of batches of thousands of rows over fewer); NaN
            before the first.
        overlap: share of the pixels of such a batch that another row of the same BigChunk shows
            too, mean; NaN before the first, and with classes of the user.
        age_s: how long ago the service told all this but `wait_share` and the means over batches,
            seconds, or a little less; infinite where it has told nothing yet.
    """

    batches: int
    patches: int
    patches_per_s: float
    wait_share: float
    decoded_mpx: float
    delivered_mpx: float
    reuse: float
    decoded_share: float
    smallchunks_per_bigchunk: int
    bigchunks_read: int
    bigchunks_ready: int
    batches_ready: int
    substitutions: int
    unusable_slides: int
    refused_share: float
    restarts: int
    bigchunks_per_batch: float
    patients_per_batch: float
    overlap: float
    age_s: float

    @classmethod
    def of(
        cls, told: Told, mean: MeanDiversity, now_s: float, elapsed_s: float, waited_s: float
    ) -> Self:
        """The statistics of a loader.

        Args:
            told: what its service has counted.
            mean: of the batches that it gave out.
            now_s: the time, by the same clock.
            elapsed_s: time since the first batch was asked for, seconds; 0 before that.
            waited_s: how much of it the training loop waited, seconds.
        """
        counted = told.counters
        return cls(
            batches=counted.batches,
            patches=counted.rows,
            patches_per_s=counted.rows / elapsed_s if elapsed_s else 0.0,
            wait_share=waited_s / elapsed_s if elapsed_s else 0.0,
            decoded_mpx=counted.decoded_px / 1e6,
            delivered_mpx=counted.delivered_px / 1e6,
            reuse=counted.delivered_px / counted.target_px if counted.target_px else 0.0,
            decoded_share=counted.decoded_px / counted.target_px if counted.target_px else 0.0,
            smallchunks_per_bigchunk=counted.smallchunks_per_bigchunk,
            bigchunks_read=counted.bigchunks,
            bigchunks_ready=counted.bigchunks_ready,
            batches_ready=counted.batches_ready,
            substitutions=counted.substitutions,
            unusable_slides=counted.unusable_slides,
            refused_share=counted.refused / counted.looked if counted.looked else 0.0,
            restarts=counted.restarts,
            bigchunks_per_batch=mean.bigchunks,
            patients_per_batch=mean.patients,
            overlap=mean.overlap,
            age_s=inf if told.at_s is None else now_s - told.at_s,
        )
