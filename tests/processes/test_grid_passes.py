"""Grid passes that overlap and overhang: the columns are enough to put a slide together again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from chunkdl import Dataset, LightDL, connect
from chunkdl.errors import EndOfStream
from chunkdl.service.config_file import read_daemon_config, spec_of
from chunkdl.service.process import ServiceProcess
from chunkdl.slides.synthetic.writing import CoordinateSlide

SIDE, STRIDE, LEVEL, FILL = 64, 48, 1, (1, 2, 3)
OVERLAPPING: dict[str, Any] = {
    "batch_size": 50,
    "smallchunk_size": SIDE,
    "bigchunk_size": 512,
    "level": LEVEL,
    "tissue_threshold": 0.0,
    "grid": True,
    "stride": STRIDE,
    "edge": "pad",
    "edge_fill": FILL,
    "num_loaders": 2,
    "num_collectors": 1,
}
Place = tuple[str, int, int]


def expected_places(slides: dict[str, CoordinateSlide]) -> list[Place]:
    """Slide and corner, in level-0 pixels, of every position of a pass."""
    found = []
    for path, slide in slides.items():
        scale = slide.levels[LEVEL]
        width, height = slide.level_size(LEVEL)
        across, down = (-(-(length - SIDE) // STRIDE) + 1 for length in (width, height))
        found += [
            (path, column * STRIDE * scale, row * STRIDE * scale)
            for row in range(down)
            for column in range(across)
        ]
    return found


def places_of(batch: Any) -> list[Place]:
    """Slide and corner of each row."""
    return list(zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


def test_a_slide_is_stitched_from_its_rows(
    coordinate_dataset: Dataset, coordinate_slides: dict[str, CoordinateSlide]
) -> None:
    """With overlap, and with rows that overhang: every pixel is that of the slide, and what lies
    outside has the colour that was asked for. Slides come in the order of the dataset."""
    canvases: dict[str, Any] = {}
    seen: list[Place] = []
    with LightDL(coordinate_dataset, **OVERLAPPING, grid_order="dataset") as loader:
        for batch in loader:
            seen += places_of(batch)
            images = batch["image"].numpy().transpose(0, 2, 3, 1)
            for (path, x, y), image in zip(places_of(batch), images, strict=True):
                if path not in canvases:
                    width, height = coordinate_slides[path].level_size(LEVEL)
                    shape = height + SIDE, width + SIDE, 3
                    canvases[path] = np.zeros(shape, np.uint8), np.zeros(shape[:2], np.int32)
                canvas, times = canvases[path]
                part = np.s_[y // 2 : y // 2 + SIDE, x // 2 : x // 2 + SIDE]
                assert np.array_equal(canvas[part][times[part] > 0], image[times[part] > 0])
                canvas[part] = image
                times[part] += 1
        assert len(loader) == -(-len(seen) // 50)
    assert sorted(seen) == sorted(expected_places(coordinate_slides))
    assert list(dict.fromkeys(path for path, *_ in seen)) == list(coordinate_slides)
    for path, (canvas, times) in canvases.items():
        width, height = coordinate_slides[path].level_size(LEVEL)
        assert times[:height, :width].min() == 1
        expected = coordinate_slides[path].pixels(LEVEL, 0, 0, width, height)
        assert np.array_equal(canvas[:height, :width], expected)
        outside = times > 0
        outside[:height, :width] = False
        assert outside[height:].any()
        assert outside[:, width:].any()
        assert (canvas[outside] == FILL).all()


def test_an_overlapping_pass_goes_on_from_a_state(coordinate_dataset: Dataset) -> None:
    """In its middle, and in another process."""
    with LightDL(coordinate_dataset, **OVERLAPPING) as loader:
        batches = list(loader)
        state = json.loads(json.dumps(batches[4].state))
    with LightDL(coordinate_dataset, **{**OVERLAPPING, "num_loaders": 1}) as loader:
        loader.load_state_dict(state)
        rest = list(loader)
    assert [places_of(batch) for batch in rest] == [places_of(batch) for batch in batches[5:]]
    for one, other in zip(rest, batches[5:], strict=True):
        assert np.array_equal(one["image"].numpy(), other["image"].numpy())


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_of_a_service_share_an_overlapping_pass(
    coordinate_slides: dict[str, CoordinateSlide],
    tmp_path_factory: pytest.TempPathFactory,
    world_size: int,
) -> None:
    """From a configuration file: each position once, as many batches for each rank, and fewer rows
    left out than there are ranks."""
    socket_folder = tmp_path_factory.mktemp("s")  # a short name, for a socket
    file = socket_folder / "service.toml"
    file.write_text(
        f"""
        [dataset]
        slides = {json.dumps(list(coordinate_slides))}
        [stream]
        batch_size = 20
        smallchunk_size = {SIDE}
        bigchunk_size = 512
        level = {LEVEL}
        tissue = "none"
        grid = true
        stride = {STRIDE}
        edge = "pad"
        edge_fill = [1, 2, 3]
        grid_order = "dataset"
        [run]
        num_loaders = 1
        num_collectors = 1
        [service]
        bind = ["ipc://{socket_folder}/s"]
        """
    )
    service = ServiceProcess(spec_of(read_daemon_config(file)))
    ranks = [
        connect(f"ipc://{socket_folder}/s", rank=rank, world_size=world_size, batch_size=20)
        for rank in range(world_size)
    ]
    seen: Counter[Place] = Counter()
    batches = 0
    try:
        while True:
            try:
                seen.update(places_of(ranks[0].next_batch(60)))
            except EndOfStream:
                break
            for rank in ranks[1:]:
                seen.update(places_of(rank.next_batch(60)))
            batches += 1
        for rank in ranks[1:]:
            with pytest.raises(EndOfStream):
                rank.next_batch(60)
    finally:
        for rank in ranks:
            rank.close()
        service.close()
    expected = expected_places(coordinate_slides)
    assert set(seen.values()) == {1}
    assert seen.keys() <= set(expected)
    assert 0 <= len(expected) - seen.total() < world_size
