"""Streams whose resolution is drawn for each BigChunk."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from scipy.stats import chisquare

from chunkdl import Continuous, Dataset, LightDL, Mixture, Patient, Record, connect
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.engine.work.window_plans import window_plan
from chunkdl.errors import ConfigError, ResolutionError
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import CoordinateSlide, write_coordinate_slide
from chunkdl.transport.protocol.engine_messages import LoadBigChunk
from tests.conftest import batch_digest, ragged_mask
from tests.processes.test_truth import assert_rows_are_true, patients_by_path
from tests.service.conftest import arguments

THREE = {0.25: 1.0, 0.5: 2.0, 1.0: 1.0}


def test_rows_of_a_mixture_are_exactly_what_their_columns_say(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    small_stream: dict[str, Any],
) -> None:
    """Pixels, level and mpp of each row; all rows of a BigChunk have one resolution."""
    stream = {**small_stream, "bigchunk_size": 256, "smallchunk_size": 48}
    patients, of_bigchunk = patients_by_path(coordinate_dataset), defaultdict(set)
    with LightDL(coordinate_dataset, mpp=THREE, **stream) as loader:
        for _ in range(120):
            batch = loader.next_batch(60)
            assert_rows_are_true(batch, coordinate_slides, 48, patients)
            for row in range(16):
                mpp, level = float(batch["mpp"][row]), int(batch["level"][row])
                assert mpp == 0.25 * 2**level
                of_bigchunk[int(batch["bigchunk"][row])].add(mpp)
    assert all(len(found) == 1 for found in of_bigchunk.values())
    assert {mpp for found in of_bigchunk.values() for mpp in found} == set(THREE)


@pytest.mark.parametrize("wish", [THREE, Continuous(0.25, 1.0, "minmax")], ids=["three", "range"])
def test_the_stream_is_the_same_for_any_workers_resumed_and_from_a_service(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    wish: Any,
    tmp_path: Path,
) -> None:
    """Bit for bit."""
    stream = {**small_stream, "bigchunk_size": 256, "smallchunk_size": 48, "mpp": wish}
    with LightDL(coordinate_dataset, **{**stream, "num_loaders": 1}) as loader:
        expected = [batch_digest(loader.next_batch(60)) for _ in range(40)]
    with LightDL(coordinate_dataset, **{**stream, "num_loaders": 3}) as loader:
        for number in range(20):
            assert batch_digest(loader.next_batch(60)) == expected[number]
        state = loader.state_dict()
    with LightDL(coordinate_dataset, **stream) as loader:
        loader.load_state_dict(state)
        assert [batch_digest(loader.next_batch(60)) for _ in range(20)] == expected[20:]
    address = f"ipc://{tmp_path}/s"
    settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
    spec = configure_service(
        coordinate_dataset, arguments(**{**stream, "batch_slots": 0}), settings
    )
    with closing(ServiceProcess(spec)), connect(address, rank=0, world_size=1) as consumer:
        assert [batch_digest(consumer.next_batch(60)) for _ in range(20)] == expected[:20]


def test_rows_of_a_range_have_the_resolution_that_was_drawn(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Many different ones, none of them moved to a level near it."""
    stream = {**small_stream, "bigchunk_size": 256, "smallchunk_size": 48}
    stream["smallchunks_per_bigchunk"] = 4
    wish = Continuous(0.26, 0.9)
    with LightDL(coordinate_dataset, mpp=wish, **stream) as loader:
        batches = [loader.next_batch(60) for _ in range(60)]
    drawn = {
        int(ordinal): float(mpp)
        for batch in batches
        for ordinal, mpp in zip(batch["bigchunk"], batch["mpp"], strict=True)
    }
    assert len(set(drawn.values())) > 150
    for ordinal, mpp in drawn.items():
        rng = generator(stream["seed"], Purpose.RESOLUTION, ordinal)
        assert mpp == pytest.approx(next(wish.in_order(rng)), rel=1e-6)
    # Levels are at 0.25 and 0.5.
    assert any(0 < abs(mpp / 0.5 - 1) < 0.01 for mpp in drawn.values())


@pytest.fixture
def one_slide(tmp_path: Path) -> Dataset:
    """A slide of three levels with ragged tissue."""
    path = str(tmp_path / "one.tif")
    write_coordinate_slide(path, 1200, 960, tile=128, levels=(1, 2, 4), mpp=0.25)
    record = Record("/", path[1:], {"tissue_mask": ragged_mask(1)})
    return Dataset("one", [Patient(0, {"slide": record})])


def drawn_rows(
    dataset: Dataset, wish: Any, bigchunks: int
) -> Mapping[float, list[tuple[int, int]]]:
    """The first row of each BigChunk, in target pixels by resolution; with the real slide."""
    given = arguments(
        mpp=wish,
        smallchunk_size=60,
        bigchunk_size=180,
        num_bigchunks=1,
        smallchunks_per_bigchunk=1,
        tissue_threshold=0.5,
        memory_limit="64MiB",
    )
    service = configure(dataset, given)
    found = defaultdict(list)
    plan = window_plan(service.stream)
    with OpenSlides(service.slides, service.stream, None) as slides:
        opened = slides.get(0)
        for ordinal in range(bigchunks):
            planned = plan.at(opened, ordinal, 0)
            draws = plan.of(planned, LoadBigChunk(ordinal, 0, 0, -1, 1, 0, 0)).draws
            found[planned.resolution.value].append((int(draws.x[0]), int(draws.y[0])))
    return found


def positions_at(dataset: Dataset, mpp: float) -> set[tuple[int, int]]:
    """All positions of the slide at a resolution."""
    given = arguments(
        mpp=mpp, smallchunk_size=60, bigchunk_size=180, num_bigchunks=1, tissue_threshold=0.5
    )
    service = configure(dataset, given)
    with OpenSlides(service.slides, service.stream, None) as slides:
        positions = slides.get(0).at(service.stream.resolution.examples[0]).positions
        y, x = np.mgrid[: positions.down.extent, : positions.across.extent]
        held = positions.hold(x.ravel(), y.ravel())
        return set(zip(x.ravel()[held].tolist(), y.ravel()[held].tolist(), strict=True))


@pytest.mark.slow
def test_within_a_resolution_every_position_is_equally_likely(one_slide: Dataset) -> None:
    """Counts in cells of positions against a chi-square, at each resolution of a mixture."""
    count = 100_000 if settings.get_current_profile_name() == "searching" else 12_000
    found = drawn_rows(one_slide, {0.25: 1.0, 0.4: 1.0, 1.0: 1.0}, count)
    shares = [len(found[mpp]) for mpp in (0.25, 0.4, 1.0)]
    assert chisquare(shares).pvalue > 1e-3
    for mpp, rows in found.items():
        positions = positions_at(one_slide, mpp)
        assert set(rows) <= positions
        cell = {0.25: 60, 0.4: 40, 1.0: 16}[mpp]
        expected: dict[tuple[int, int], int] = defaultdict(int)
        drawn: dict[tuple[int, int], int] = defaultdict(int)
        for x, y in positions:
            expected[x // cell, y // cell] += 1
        for x, y in rows:
            drawn[x // cell, y // cell] += 1
        cells = sorted(expected)
        wanted = np.array([expected[one] for one in cells]) * (len(rows) / len(positions))
        seen = np.array([drawn[one] for one in cells])
        # Cells that expect few rows are one cell.
        few = wanted < 8
        wanted = np.append(wanted[~few], wanted[few].sum())
        seen = np.append(seen[~few], seen[few].sum())
        assert chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


@pytest.fixture
def fine_and_coarse(tmp_path: Path) -> Callable[..., Dataset]:
    """Two patients, one whose slide begins at 0.25 and one at 0.5 microns per pixel."""
    records = []
    for number, mpp in enumerate((0.25, 0.5)):
        path = str(tmp_path / f"{mpp}.tif")
        write_coordinate_slide(path, 900, 700, slide_id=number, tile=128, levels=(1, 2, 4), mpp=mpp)
        records.append(Record("/", path[1:], {}))

    def make() -> Dataset:
        return Dataset("two", [Patient(n, {"slide": one}) for n, one in enumerate(records)])

    return make


def test_what_a_slide_cannot_give_is_left_out_of_its_mixture_and_told(
    fine_and_coarse: Callable[..., Dataset], caplog: pytest.LogCaptureFixture
) -> None:
    """The other slide gives all; the rest keeps its proportions."""
    stream: dict[str, Any] = {"batch_size": 8, "smallchunk_size": 32, "bigchunk_size": 96}
    stream |= {"num_bigchunks": 4, "smallchunks_per_bigchunk": 2}
    with (
        caplog.at_level(logging.WARNING, "chunkdl"),
        LightDL(fine_and_coarse(), mpp=THREE, tissue="none", seed=5, **stream) as loader,
    ):
        of_patient = defaultdict(list)
        for _ in range(100):
            batch = loader.next_batch(60)
            for patient, mpp in zip(batch["patient"], batch["mpp"].tolist(), strict=True):
                of_patient[patient].append(mpp)
    assert "1 of 2 slides cannot give all of mpp={0.25: 1, 0.5: 2, 1: 1}" in caplog.text
    assert "0.5.tif" in caplog.text
    assert set(of_patient["0"]) == {0.25, 0.5, 1.0}
    assert set(of_patient["1"]) == {0.5, 1.0}
    coarse = of_patient["1"][::2]
    counts = [coarse.count(0.5), coarse.count(1.0)]
    assert chisquare(counts, [sum(counts) * 2 / 3, sum(counts) / 3]).pvalue > 1e-3


@pytest.mark.parametrize("wish", [Mixture(THREE, exact=True), Continuous(0.25, 1.0, exact=True)])
def test_with_exact_a_slide_that_cannot_give_all_is_an_error(
    fine_and_coarse: Callable[..., Dataset], wish: Any
) -> None:
    """It names the slide and what to do."""
    with pytest.raises(ResolutionError, match=r"1 of 2 slides cannot give all .*0\.5\.tif.*exact"):
        LightDL(fine_and_coarse(), mpp=wish, tissue="none", smallchunk_size=32, bigchunk_size=96)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"mpp": THREE, "downsample": 2}, "downsample and magnification, not mpp, downs"),
        ({"mpp": THREE, "level": 0}, "downsample and magnification, not level, mpp"),
        ({"mpp": THREE, "grid": True}, "a grid pass has one resolution: give mpp as a number"),
        ({"mpp": Continuous(1, 2), "resolution_policy": "nearest"}, "a range are resampled"),
        ({"mpp": {0.5: -1}}, "mpp: the weight -1 of 0.5"),
        ({"downsample": {"low": 1}}, "downsample="),
        (
            {"mpp": {0.01: 1, 0.02: 1}},
            r"mpp=\{0.01: 1, 0.02: 1\} is not possible for 2 of 2 slides",
        ),
    ],
)
def test_what_goes_with_no_other_setting_is_refused(
    fine_and_coarse: Callable[..., Dataset], given: dict[str, Any], told: str
) -> None:
    """Before anything starts."""
    with pytest.raises((ConfigError, ResolutionError), match=told):
        LightDL(fine_and_coarse(), tissue="none", smallchunk_size=32, bigchunk_size=96, **given)
