"""The loader as its users use it: finite streams, grid passes, views, statistics, torch."""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from chunkdl import Dataset, EndOfStream, LightDL
from chunkdl.errors import ConfigError, GetTimeout, ProtocolError
from chunkdl.slides.synthetic.writing import CoordinateSlide
from chunkdl.slides.tissue.mask import TissueMask


def test_get_returns_what_pydmed_returned(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """A channels-last uint8 tensor, the patients, and SmallChunks that know where they are from."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        x, patients, smallchunks = loader.get(timeout=60)

    assert x.shape == (16, 3, 64, 64)
    assert x.dtype == torch.uint8
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert {patient.int_uniqueid for patient in patients} == {7, 9}
    assert len(smallchunks) == 16
    assert smallchunks[3].patient is patients[3]
    assert set(smallchunks[3].dict_info_of_smallchunk) >= {"x", "y", "level", "tissue_fraction"}


def test_transform_and_collate_run_as_in_pydmed(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """`tfms` maps each SmallChunk's pixels; `collate_func` gets the chunks with their pixels."""
    with LightDL(
        coordinate_dataset, tfms=lambda pixels: pixels[:32, :32].mean(axis=2), **small_stream
    ) as loader:
        x, patients, _ = loader.get(timeout=60)
    with LightDL(
        coordinate_dataset,
        collate_func=lambda chunks, tfms: [chunk.data.shape for chunk in chunks],
        **small_stream,
    ) as loader:
        shapes = loader.get(timeout=60)

    assert x.shape == (16, 32, 32)
    assert len(patients) == 16
    assert shapes == [(64, 64, 3)] * 16


def test_a_finite_stream_ends_after_exactly_so_many_batches(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """`batches=5`: five, then StopIteration; the next iteration brings the five after them."""
    with LightDL(coordinate_dataset, batches=5, **small_stream) as loader:
        first = [batch.number for batch in loader]
        with pytest.raises(EndOfStream):
            loader.get(timeout=60)
        with pytest.raises(StopIteration):
            next(loader)
        second = [batch.number for batch in loader]

    assert first == [0, 1, 2, 3, 4]
    assert second == [5, 6, 7, 8, 9]


def test_a_finite_stream_resumes_in_the_middle(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """A state saved after three of five batches leaves two to come."""
    with LightDL(coordinate_dataset, batches=5, **small_stream) as loader:
        for _ in range(3):
            loader.get(timeout=60)
        state = loader.state_dict()
    with LightDL(coordinate_dataset, batches=5, **small_stream) as loader:
        loader.load_state_dict(state)
        rest = [batch.number for batch in loader]

    assert rest == [3, 4]


def grid_positions(dataset: Dataset, side: int, threshold: float) -> Counter[tuple[str, int, int]]:
    """Every grid position of the coordinate slides with enough tissue, by brute force."""
    expected: Counter[tuple[str, int, int]] = Counter()
    for patient in dataset:
        for record in patient.slides:
            mask = TissueMask(np.asarray(record.dict_infos["tissue_mask"]), 1500, 1248)
            for x, y in itertools.product(
                range(0, 1500 - side + 1, side), range(0, 1248 - side + 1, side)
            ):
                corner = [np.array([float(value)]) for value in (x, y, x + side, y + side)]
                if mask.fraction(*corner)[0, 0] >= threshold:
                    expected[record.path, x, y] += 1
    return expected


def delivered(batches: list[Any]) -> Counter[tuple[str, int, int]]:
    return Counter(
        (path, int(x), int(y))
        for batch in batches
        for path, x, y in zip(batch["slide"], batch["x"], batch["y"], strict=True)
    )


def test_a_grid_pass_has_every_position_exactly_once(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
) -> None:
    """Each pass covers the grid once, in the same order; rows are true; the end is told."""
    arguments = {**small_stream, "smallchunks_per_bigchunk": None, "grid": True}
    expected = grid_positions(coordinate_dataset, 64, 0.5)
    with LightDL(coordinate_dataset, **arguments) as loader:
        first, second = list(loader), list(loader)
        with pytest.raises(EndOfStream):
            loader.get(timeout=60)

    assert delivered(first) == expected
    assert delivered(second) == expected
    assert [batch["slide"] for batch in first] == [batch["slide"] for batch in second]
    rows = sum(expected.values())
    assert [len(batch.patients) for batch in first] == [16] * (rows // 16) + (
        [rows % 16] if rows % 16 else []
    )
    for batch in first[::7]:
        for row, path in enumerate(batch["slide"]):
            x, y = int(batch["x"][row]), int(batch["y"][row])
            pixels = batch["image"][row].permute(1, 2, 0).numpy()
            assert np.array_equal(pixels, coordinate_slides[path].pixels(0, x, y, 64, 64))


def test_a_grid_pass_resumes_without_loss_or_repetition(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Half a pass, a new loader with the state, the other half: together every position once."""
    arguments = {**small_stream, "smallchunks_per_bigchunk": None, "grid": True}
    expected = grid_positions(coordinate_dataset, 64, 0.5)
    with LightDL(coordinate_dataset, **arguments) as loader:
        first = [loader.next_batch(60) for _ in range(12)]
        state = loader.state_dict()
    with LightDL(coordinate_dataset, **arguments) as loader:
        loader.load_state_dict(state)
        second = list(loader)

    assert delivered(first + second) == expected


def test_drop_last_leaves_out_only_the_short_batch(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """With `drop_last` every batch of two passes in a row is full."""
    arguments = {
        **small_stream,
        "smallchunks_per_bigchunk": None,
        "grid": True,
        "drop_last": True,
        "batch_size": 17,
    }
    rows = sum(grid_positions(coordinate_dataset, 64, 0.5).values())
    with LightDL(coordinate_dataset, **arguments) as loader:
        for _ in range(2):
            batches = list(loader)

            assert [len(batch.patients) for batch in batches] == [17] * (rows // 17)


def test_the_dataset_view_works_in_a_dataloader(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """DataLoader(view, batch_size=None) yields the columns; workers of its own are refused."""
    with LightDL(coordinate_dataset, batches=3, **small_stream) as loader:
        batches = list(DataLoader(loader.dataset_view(), batch_size=None))

        assert [batch["image"].shape for batch in batches] == [(16, 3, 64, 64)] * 3
        assert all(len(batch["slide"]) == 16 for batch in batches)


def test_a_dataloader_with_workers_is_refused(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """chunkdl has its own processes; a torch worker that would make more is told so."""
    loader = LightDL(coordinate_dataset, batches=3, **small_stream)
    with pytest.raises(ConfigError, match="num_workers=0"):
        list(DataLoader(loader.dataset_view(), batch_size=None, num_workers=1))


def test_copied_batches_stay_and_leased_ones_come_back(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Kept copies never change; leases that are dropped make room; holding all is an error."""
    with LightDL(coordinate_dataset, batch_slots=3, **small_stream) as loader:
        kept = [loader.next_batch(60, copy=True)["image"] for _ in range(12)]
        before = [image.clone() for image in kept]
        for _ in range(12):
            loader.next_batch(60, copy=False)
        assert all(torch.equal(a, b) for a, b in zip(kept, before, strict=True))

        held = [loader.next_batch(60, copy=False) for _ in range(3)]
        with pytest.raises(ProtocolError, match="copy=False"):
            loader.next_batch(60)
        del held
        loader.next_batch(60)


def test_a_loop_that_keeps_its_batches_is_given_copies_in_time(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """By default nothing is copied while few batches are held, nothing starves, nothing changes."""
    with LightDL(coordinate_dataset, batch_slots=4, **small_stream) as loader:
        kept = [loader.next_batch(60) for _ in range(20)]
        before = [batch["image"].clone() for batch in kept]
        places = [batch["x"].clone() for batch in kept]
        assert loader._assembly.copies == 18
        for _ in range(20):
            loader.get(timeout=60)
        for batch, image, x in zip(kept, before, places, strict=True):
            assert torch.equal(batch["image"], image)
            assert torch.equal(batch["x"], x)

        del kept, batch
        copies = loader._assembly.copies
        for _ in range(20):
            loader.get(timeout=60)
        assert loader._assembly.copies - copies <= 1


def test_leased_and_copied_batches_are_equal(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """copy=False shows the same bytes as copy=True."""
    with (
        LightDL(coordinate_dataset, **small_stream) as copies,
        LightDL(coordinate_dataset, **small_stream) as leases,
    ):
        for _ in range(10):
            copied, leased = copies.next_batch(60), leases.next_batch(60, copy=False)
            assert torch.equal(copied["image"], leased["image"])
            assert torch.equal(copied["x"], leased["x"])


def test_statistics_tell_the_reuse(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """stats() counts what was delivered and decoded; asking in between loses no batch."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        numbers = []
        for _ in range(30):
            numbers.append(loader.next_batch(60).number)
            statistics = loader.stats(60)

    assert numbers == list(range(30))
    assert statistics.patches >= 30 * 16
    assert statistics.delivered_mpx == pytest.approx(statistics.patches * 64 * 64 / 1e6)
    target_mpx = statistics.decoded_mpx / statistics.decoded_share
    assert statistics.reuse == pytest.approx(statistics.delivered_mpx / target_mpx)
    assert statistics.smallchunks_per_bigchunk == 40
    assert 0 <= statistics.wait_share <= 1


@pytest.mark.parametrize(
    ("asked", "least_share", "most_share"),
    [
        ({"reuse": 1.0}, 0.9, 1.2),
        ({"reuse": 4.0, "level": 1}, 0.9, 1.2),
        # Level 0 is read for it, whose pixels are 1.8 times as small; each loader keeps some tiles.
        ({"reuse": 2.0, "mpp": 0.45}, 1.1, 1.3 * 1.8**2),
        # Half as wide as the tiles of the file, of which a BigChunk touches one to four.
        ({"reuse": 1.0, "bigchunk_size": 64, "smallchunk_size": 16}, 1.5, 9.0),
    ],
    ids=str,
)
def test_the_reuse_that_was_asked_for_comes_and_what_was_decoded_for_it_is_told(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    asked: dict[str, Any],
    least_share: float,
    most_share: float,
) -> None:
    """Delivered pixels per pixel of the regions, at any resolution and any size of window."""
    wished = {"smallchunks_per_bigchunk": None, "batch_size": 64, "tissue": "none"}
    arguments = {**small_stream, **wished, "tissue_threshold": 0.0, "num_loaders": 2, **asked}
    with LightDL(coordinate_dataset, **arguments) as loader:
        for _ in range(150):
            loader.get(timeout=60)
        statistics = loader.stats(60)
    assert statistics.reuse == pytest.approx(asked["reuse"], rel=0.25)
    assert least_share < statistics.decoded_share < most_share


def test_a_timeout_is_an_error_and_loses_nothing(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """get(timeout=0) raises GetTimeout while nothing is there; the stream goes on from there."""
    loader = LightDL(coordinate_dataset, **small_stream)
    with pytest.raises(GetTimeout):
        loader.get(timeout=0)
    with loader:
        assert loader.next_batch(60).number == 0


def test_the_endless_stream_needs_no_more_slots_than_places(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """A batch larger than all open BigChunks serve at a time still comes, in little memory."""
    arguments = {
        **small_stream,
        "batch_size": 256,
        "num_bigchunks": 3,
        "smallchunks_per_bigchunk": 5,
        "memory_limit": "14MiB",
        "batch_slots": 2,
    }
    with LightDL(coordinate_dataset, **arguments) as loader:
        for number in range(5):
            assert loader.next_batch(60).number == number


# Python has no way to pass on an interrupt that comes in a finalizer, as when a batch is dropped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_lose_no_batch_and_lock_nothing(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Whatever step of a batch they come in, the next call goes on with what was not returned."""
    numbers: list[int] = []
    interrupts = 0

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with LightDL(coordinate_dataset, **small_stream) as loader:
            loader.next_batch(60)
            while interrupts < 60:
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.01), 0.1)
                        while True:
                            numbers.append(loader.next_batch(60).number)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    interrupts += 1
            state = loader.state_dict()
            numbers.append(loader.next_batch(60).number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    # What was interrupted on its way out of the last call was given out all the same.
    steps = np.diff([0, *numbers])
    assert set(steps.tolist()) <= {1, 2}
    assert (steps == 2).sum() <= interrupts // 6
    assert not state["ahead"]


def test_a_batch_over_which_the_users_code_raises_is_the_next_one_again(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Until then the state does not count it."""
    seen: list[int] = []

    def collate(chunks: list[Any], tfms: object) -> list[int]:
        seen.append(len(seen))
        if len(seen) == 2:
            raise ValueError("not this time")
        assert loader.state_dict()["next_batch"] == len(seen) - 1 - (len(seen) > 2)
        return [chunk.dict_info_of_smallchunk["x"] for chunk in chunks]

    with LightDL(coordinate_dataset, **small_stream) as plain:
        rows = [plain.next_batch(60)["x"].tolist() for _ in range(3)]
    with LightDL(coordinate_dataset, collate_func=collate, **small_stream) as loader:
        got = [loader.next_batch(60)]
        with pytest.raises(ValueError, match="not this time"):
            loader.next_batch(60)
        got += [loader.next_batch(60), loader.next_batch(60)]

    assert got == rows


def test_a_handler_may_do_anything_at_any_moment(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Statistics, state, a pause: none waits for the step that it has interrupted."""
    calls: list[str] = []

    def handler(number: int, frame: object) -> None:
        calls.append("called")
        loader.stats()
        loader.state_dict()
        if len(calls) == 40:
            loader.pause()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with LightDL(coordinate_dataset, **small_stream) as loader:
            loader.next_batch(60)
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.003)
            numbers = []
            while len(calls) < 150:
                numbers.append(loader.next_batch(60).number)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert numbers == list(range(1, 1 + len(numbers)))


def test_code_that_writes_into_its_rows_and_raises_gets_fresh_ones(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """The batch that it failed over comes again as the slide has it."""
    first: list[Any] = []

    def collate(chunks: list[Any], tfms: object) -> Any:
        pixels = np.stack([chunk.data for chunk in chunks])
        if not first:
            first.append(pixels)
            for chunk in chunks:
                chunk.data[:] = 0
            raise ValueError("not this time")
        return pixels

    with LightDL(coordinate_dataset, collate_func=collate, **small_stream) as loader:
        with pytest.raises(ValueError, match="not this time"):
            loader.next_batch(60)
        assert np.array_equal(loader.next_batch(60), first[0])
