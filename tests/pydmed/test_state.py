"""A state of PyDmed's loader, saved where rows were received that no get() has returned yet."""

from __future__ import annotations

import json
from typing import Any

from chunkdl import Dataset, Patient, Record
from chunkdl.pydmed.extensions.wsi import (
    SlidingWindowBigChunkLoader,
    SlidingWindowDL,
    SlidingWindowSmallChunkCollector,
)
from chunkdl.pydmed.lightdl import get_default_constglobinf
from chunkdl.slides.synthetic.writing import CoordinateSlide


def test_a_resumed_sliding_window_loses_no_tile_and_repeats_none(
    coordinate_slides: dict[str, CoordinateSlide],
) -> None:
    """Wherever the state was saved, the same SmallChunks come behind it."""
    paths = list(coordinate_slides)[:2]
    patients = [Patient(n, {"H&E": Record("/", path[1:])}) for n, path in enumerate(paths)]
    settings = {**get_default_constglobinf(), "num_bigchunkloaders": 2}

    def places(chunks: list[Any], tfms: Any) -> list[tuple[int, int, int]]:
        return [
            (
                chunk.patient.int_uniqueid,
                chunk.dict_info_of_smallchunk["x"],
                chunk.dict_info_of_bigchunk["y"],
            )
            for chunk in chunks
        ]

    def window(level_of: Any) -> SlidingWindowDL:
        return SlidingWindowDL(
            level_of,
            200,
            200,
            1,
            None,
            None,
            Dataset("two", patients),
            SlidingWindowBigChunkLoader,
            SlidingWindowSmallChunkCollector,
            settings,
            7,
            None,
            collate_func=places,
            num_loaders=1,
            num_collectors=1,
        )

    # One patient has far more tiles than the other, so most batches are short.
    loader = window(lambda patient: 2 * patient.int_uniqueid)
    loader.start()
    got, states = [], []
    while not isinstance(row := loader.get(), str):
        got.append(row)
        states.append(json.dumps(loader.state_dict()))
    assert any("returned" in json.loads(state) for state in states)
    every = [place for row in got for place in row]
    assert len(set(every)) == len(every)
    for number in range(0, len(states), 3):
        loader.load_state_dict(json.loads(states[number]))
        rest = []
        while not isinstance(row := loader.get(), str):
            rest += row
        assert rest == [place for row in got[number + 1 :] for place in row]
    loader.pause_loading()
