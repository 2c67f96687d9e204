"""What a user's class may read of slides on which the plan would find no place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import (
    BigChunk,
    BigChunkLoader,
    Dataset,
    LightDL,
    Patient,
    Record,
    SmallChunk,
    SmallChunkCollector,
)
from chunkdl.errors import ResolutionError
from chunkdl.slides.synthetic.writing import write_coordinate_slide

SMALL: dict[str, Any] = {
    "batch_size": 4,
    "num_bigchunks": 1,
    "smallchunks_per_bigchunk": 4,
    "smallchunk_size": 64,
    "bigchunk_size": 128,
    "memory_limit": "64MiB",
    "num_loaders": 1,
    "num_collectors": 1,
}


class Corner(BigChunkLoader):
    """The corner of the slide, its size, and how much of it is tissue."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """Nothing of the plan is asked for."""
        other = self.patient.dict_records.get("other")
        size = [self.slide.info.levels[0].width, float(self.tissue_mask.cells.mean())]
        data = {"corner": self.read_region(0, 0, 16, 16, level=0).copy(), "size": np.array(size)}
        data["same"] = self.read_region(0, 0, 16, 16).copy()
        if isinstance(other, Record):
            data["other"] = self.read_region(0, 0, 16, 16, record=other).copy()
        return data


class Whole(SmallChunkCollector):
    """The BigChunk itself."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """Each call the same."""
        data = bigchunk.data if isinstance(bigchunk, BigChunk) else bigchunk
        return SmallChunk(dict(data), {}, {}, self.patient)


def patient_with(folder: Path, **records: Any) -> Dataset:
    """A patient with coordinate slides of these sizes and masks."""
    found: dict[str, object] = {}
    for number, (name, (side, mpp, mask)) in enumerate(records.items()):
        path = str(folder / f"{name}.tif")
        write_coordinate_slide(path, side, side, slide_id=number, tile=128, levels=(1, 2), mpp=mpp)
        infos = {} if mask is None else {"tissue_mask": mask}
        found[name] = Record("/", path[1:], infos)
    return Dataset("bare", [Patient(0, found)])


@pytest.mark.parametrize(
    ("side", "mask"),
    [(512, np.zeros((16, 16), np.bool_)), (48, None)],
    ids=["no tissue", "smaller than a SmallChunk"],
)
def test_a_class_that_asks_nothing_of_the_plan_reads_any_slide(
    tmp_path: Path, side: int, mask: Any
) -> None:
    """Its pixels, its tissue and its facts; another slide beside it needs no tissue either."""
    nothing = np.zeros((16, 16), np.bool_)
    dataset = patient_with(tmp_path, slide=(side, 0.25, mask), other=(256, 0.25, nothing))
    with LightDL(dataset, Corner, Whole, tissue="none", **SMALL) as loader:
        batch = loader.next_batch(60)
    assert int(batch["size"][0, 0]) in (side, 256)
    assert batch["corner"].equal(batch["same"])
    assert batch["other"].shape == batch["corner"].shape


def test_another_slide_is_read_at_the_resolution_of_the_bigchunk_or_not_at_all(
    tmp_path: Path,
) -> None:
    """Never at one that it happens to have."""
    dataset = patient_with(tmp_path, slide=(512, 0.25, None), other=(512, 0.5, None))
    with (
        LightDL(
            dataset, Corner, Whole, tissue="none", mpp={0.25: 1, 0.5: 1}, on_error="raise", **SMALL
        ) as loader,
        pytest.raises(ResolutionError, match="finer than level 0"),
    ):
        for _ in range(20):
            loader.next_batch(60)
