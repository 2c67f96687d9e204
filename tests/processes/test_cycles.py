"""Streams without replacement, with real processes: every position once in each cycle."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import psutil
import pytest

from chunkdl import Dataset, LightDL, connect
from chunkdl.errors import ConfigError
from chunkdl.sampling.resolutions import Continuous
from chunkdl.service.config_file import read_daemon_config, spec_of
from chunkdl.service.process import ServiceProcess
from chunkdl.slides.synthetic.writing import CoordinateSlide

Place = tuple[str, int, int]
CYCLES: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": 64,
    "bigchunk_size": 256,
    "tissue_threshold": 0.5,
    "num_bigchunks": 6,
    "replacement": False,
    "num_loaders": 2,
    "num_collectors": 1,
    "seed": 3,
}


def places_of(batch: Any) -> list[Place]:
    """Slide and corner of each row."""
    return list(zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


@pytest.fixture(scope="module")
def grid_places(coordinate_dataset: Dataset) -> set[Place]:
    """Every position of the grid that has tissue."""
    settings = {**CYCLES, "replacement": True, "grid": True}
    with LightDL(coordinate_dataset, **settings) as loader:
        return {place for batch in loader for place in places_of(batch)}


@pytest.fixture(scope="module")
def two_passes(coordinate_dataset: Dataset, digest_of: Callable[[Any], str]) -> list[list[str]]:
    """The batches of two passes of two cycles each, undisturbed."""
    with LightDL(coordinate_dataset, **CYCLES, cycles=2) as loader:
        return [[digest_of(batch) for batch in loader] for _ in range(2)]


def test_a_pass_has_every_position_of_the_grid_once_in_each_cycle(
    coordinate_dataset: Dataset,
    coordinate_slides: dict[str, CoordinateSlide],
    grid_places: set[Place],
) -> None:
    """With its own pixels, in batches that mix slides and regions, and another order in each pass;
    its length is known."""
    with LightDL(coordinate_dataset, **CYCLES, cycles=2) as loader:
        orders = []
        for _ in range(2):
            rows = []
            for batch in loader:
                rows += places_of(batch)
                images = batch["image"].numpy().transpose(0, 2, 3, 1)
                for (path, x, y), image in zip(places_of(batch), images, strict=True):
                    expected = coordinate_slides[path].pixels(0, x, y, 64, 64)
                    assert np.array_equal(image, expected)
            assert Counter(rows) == dict.fromkeys(grid_places, 2)
            assert len(loader) == -(-len(rows) // 16)
            orders.append(rows)
        assert orders[0] != orders[1]
        assert len({path for path, *_ in orders[0][:32]}) == 3


def test_workers_that_are_killed_change_nothing(
    coordinate_dataset: Dataset,
    two_passes: list[list[str]],
    digest_of: Callable[[Any], str],
    processes_of_this_run: Callable[..., list[psutil.Process]],
) -> None:
    """Loaders and collectors, and there are others of them; not one bit."""
    found: list[list[str]] = []
    settings = {**CYCLES, "num_loaders": 3, "num_collectors": 2, "max_restarts": 50}
    with LightDL(coordinate_dataset, **settings, cycles=2) as loader:
        for _ in range(2):
            found.append([])
            for number, batch in enumerate(loader):
                found[-1].append(digest_of(batch))
                if number % 17 == 4:
                    program = "loader" if number % 2 else "collector"
                    processes_of_this_run(program)[0].kill()
    assert found == two_passes


def test_a_pass_goes_on_from_a_state(
    coordinate_dataset: Dataset, two_passes: list[list[str]], digest_of: Callable[[Any], str]
) -> None:
    """In its first cycle, in its second, at its end, and in its second pass; with other
    processes. `set_epoch` goes to the beginning of a pass."""
    states = {}
    with LightDL(coordinate_dataset, **CYCLES, cycles=2) as loader:
        for number, batch in enumerate([*loader, *loader]):
            states[number + 1] = json.loads(json.dumps(batch.state))
    digests = [digest for one in two_passes for digest in one]
    length = len(two_passes[0])
    with LightDL(coordinate_dataset, **{**CYCLES, "num_loaders": 1}, cycles=2) as loader:
        for after in (1, length // 2 + 3, length - 1, length, length + 5):
            loader.load_state_dict(states[after])
            rest = [digest_of(batch) for batch in islice(loader, 6)]
            end = length if after < length else 2 * length
            assert rest == digests[after : min(after + 6, end)]
        loader.set_epoch(1)
        assert [digest_of(batch) for batch in loader] == two_passes[1]


def test_an_endless_stream_repeats_no_position_within_a_cycle(
    coordinate_dataset: Dataset, grid_places: set[Place], digest_of: Callable[[Any], str]
) -> None:
    """A slide comes round again once it has given all; patients keep equal shares, though one has
    two slides; and it goes on from a state, behind several cycles."""
    of_slide = Counter(path for path, *_ in grid_places)
    seen: defaultdict[str, list[Place]] = defaultdict(list)
    patients: Counter[str] = Counter()
    digests = []
    with LightDL(coordinate_dataset, **CYCLES, cycles=None) as loader:
        with pytest.raises(TypeError, match="endless"):
            len(loader)
        for number in range(130):
            batch = loader.next_batch(60)
            digests.append(digest_of(batch))
            patients.update(patient.name for patient in batch.patients)
            for place in places_of(batch):
                seen[place[0]].append(place)
            if number == 99:
                state = json.loads(json.dumps(loader.state_dict()))
    for path, places in seen.items():
        assert len(places) > 1.5 * of_slide[path]
        for place, count in Counter(places).items():
            assert abs(count - len(places) / of_slide[path]) <= 2, place
    first, second = patients.values()
    # What is open of each patient differs, by as many windows as are open at most.
    assert abs(first - second) <= 2 * 16 * 6
    with LightDL(coordinate_dataset, **CYCLES, cycles="endless") as loader:
        loader.load_state_dict(state)
        assert [digest_of(loader.next_batch(60)) for _ in range(30)] == digests[100:]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_of_a_service_share_a_pass(
    coordinate_slides: dict[str, CoordinateSlide],
    tmp_path_factory: pytest.TempPathFactory,
    processes_of_this_run: Callable[..., list[psutil.Process]],
    world_size: int,
) -> None:
    """From a configuration file, over two passes in which a loader is killed and ranks come back
    from their states: each position once, and fewer rows left out than there are ranks."""
    folder = tmp_path_factory.mktemp("s")  # a short name, for a socket
    file = folder / "service.toml"
    file.write_text(
        f"""
        [dataset]
        slides = {json.dumps(list(coordinate_slides))}
        [stream]
        batch_size = 16
        smallchunk_size = 100
        bigchunk_size = 400
        tissue = "none"
        num_bigchunks = 4
        replacement = false
        cycles = 1
        stride = 90
        [run]
        num_loaders = 1
        num_collectors = 1
        [service]
        bind = ["ipc://{folder}/s"]
        """
    )
    across, down = (1500 - 100) // 90 + 1, (1248 - 100) // 90 + 1
    expected = {
        (path, 90 * column, 90 * row)
        for path in coordinate_slides
        for column in range(across)
        for row in range(down)
    }
    service = ServiceProcess(spec_of(read_daemon_config(file)))

    def join(rank: int) -> Any:
        address = f"ipc://{folder}/s"
        return connect(address, rank=rank, world_size=world_size, batch_size=16)

    ranks = [join(rank) for rank in range(world_size)]
    try:
        for one in range(2):
            seen: Counter[Place] = Counter()
            iterators = [iter(loader) for loader in ranks]
            for step in range(10**6):
                if step == 3:
                    processes_of_this_run("loader")[0].kill()
                if step == 5 and not one:
                    state = json.loads(json.dumps(ranks[0].state_dict()))
                    for loader in ranks:
                        loader.close()
                    ranks = [join(rank) for rank in range(world_size)]
                    for loader in ranks:
                        loader.load_state_dict(state)
                    iterators = [iter(loader) for loader in ranks]
                batches = [next(iterator, None) for iterator in iterators]
                if batches[0] is None:
                    break
                for batch in batches:
                    seen.update(places_of(batch))
            assert batches == [None] * world_size
            assert set(seen.values()) == {1}
            assert seen.keys() <= expected
            assert 0 <= len(expected) - seen.total() < world_size
    finally:
        for loader in ranks:
            loader.close()
        service.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": True}, "grid=True takes each position once"),
        ({"mpp": {0.25: 1, 0.5: 1}}, "a stream without replacement has one resolution"),
        ({"mpp": Continuous(0.25, 1.0)}, "a stream without replacement has one resolution"),
        ({"cycles": 0}, "cycles=0 must be an integer of at least 1"),
        ({"cycles": "all"}, 'an integer of at least 1, or "endless"'),
        ({"replacement": True, "cycles": 2}, "cycles=2 is only for replacement=False"),
        ({"shuffle": True}, "only for grid=True"),
        ({"batches": 3}, "a pass has its own end"),
    ],
)
def test_what_cannot_be_without_replacement_is_refused(
    coordinate_dataset: Dataset, given: dict[str, Any], message: str
) -> None:
    """With what to do, before anything starts."""
    with pytest.raises(ConfigError, match=message):
        LightDL(coordinate_dataset, **{**CYCLES, **given})
