"""Streams whose slides have weights: how often each comes, embedded and from a service."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Balance, Dataset, LightDL, RoundRobin, connect
from chunkdl.errors import ConfigError, SlideError, StateError
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box, geojson_of
from tests.conftest import batch_digest
from tests.service.conftest import arguments

STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": 64,
    "bigchunk_size": 256,
    "num_bigchunks": 16,
    "smallchunks_per_bigchunk": 1,
    "tissue": "none",
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "200MiB",
    "seed": 4,
}
GRADES = ("high", "low", "low", "low", "low", "low", "low", "low")
ROUND, BATCHES = 64, 40
"""40 batches are 10 rounds of 64 BigChunks, one row each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight slides of seven patients, one of them with the only slide of its grade."""
    folder = tmp_path_factory.mktemp("balanced")
    (folder / "shapes").mkdir()
    lines = ["patient,slide,grade,share"]
    for number, grade in enumerate(GRADES):
        path = str(folder / f"s{number}.tif")
        write_coordinate_slide(path, 512, 512, slide_id=number, tile=128, levels=(1,))
        lines.append(f"p{min(number, 6)},s{number}.tif,{grade},{0.5 * number}")
        shapes = geojson_of(box(0, 0, 300, 300, "a" if number < 4 else "b"))
        (folder / "shapes" / f"s{number}.geojson").write_bytes(shapes)
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    """Of the list."""
    return Dataset.from_csv(folder / "list.csv")


def drawn(loader: Any, batches: int = BATCHES) -> Counter[int]:
    """How many BigChunks there are of each slide."""
    found: dict[int, int] = {}
    for _ in range(batches):
        batch = loader.next_batch(60)
        slides = (int(Path(slide).stem[1:]) for slide in batch["slide"])
        found.update(zip(batch["bigchunk"].tolist(), slides, strict=True))
    assert len(found) == batches * 16
    return Counter(found.values())


def test_categories_come_equally_often_however_few_slides_they_have(
    dataset: Dataset,
) -> None:
    """A seventh of the patients has half of the rows, in every round of the stream."""
    with LightDL(dataset, **STREAM, balance=["grade", "patient"]) as loader:
        for _ in range(BATCHES // 4):
            counts = drawn(loader, 4)
            assert counts[0] == ROUND / 2
        counts = drawn(loader)
        # Six patients of the other grade, of whom the last has two slides.
        each = BATCHES * 16 / 2 / 6
        assert all(counts[slide] == pytest.approx(each, abs=12) for slide in range(1, 6))
        assert counts[6] + counts[7] == pytest.approx(each, abs=12)


def test_weights_of_categories_and_of_slides_hold(dataset: Dataset) -> None:
    """To a choice a round."""
    weights = Balance(("grade",), weights={"high": 1, "low": 7})
    with LightDL(dataset, **STREAM, balance=weights) as loader:
        assert drawn(loader) == dict.fromkeys(range(8), BATCHES * 16 / 8)
    with LightDL(dataset, **STREAM, balance={"slide_weights": "share"}) as loader:
        counts = drawn(loader)
        assert counts[0] == 0
        for slide in range(1, 8):
            assert counts[slide] == pytest.approx(BATCHES * 16 * slide / 28, abs=10)


def test_classes_of_regions_are_balanced_inside(dataset: Dataset, folder: Path) -> None:
    """The weights of the classes hold over the stream, and inside those of the grades."""
    with LightDL(
        dataset,
        **STREAM,
        annotations=folder / "shapes",
        regions={"a": 3, "b": 1},
        balance=["grade"],
    ) as loader:
        counts = drawn(loader)
    total = BATCHES * 16
    assert sum(counts[slide] for slide in range(4)) == 3 * total / 4
    assert counts[0] == pytest.approx(3 * total / 8, abs=BATCHES / 4)
    assert counts[1] == pytest.approx(total / 8, abs=15)


def test_a_balanced_stream_is_the_same_for_all_resumed_and_from_a_service(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Bit for bit; a state of other labels is refused."""
    wish = {**STREAM, "balance": ["grade", "patient"]}
    with LightDL(dataset, **wish) as loader:
        expected = [batch_digest(loader.next_batch(60)) for _ in range(20)]
    with LightDL(dataset, **{**wish, "num_loaders": 2, "num_collectors": 2}) as loader:
        assert [batch_digest(loader.next_batch(60)) for _ in range(10)] == expected[:10]
        state = loader.state_dict()
    with LightDL(dataset, **wish) as loader:
        loader.load_state_dict(state)
        assert [batch_digest(loader.next_batch(60)) for _ in range(10)] == expected[10:]
    with (
        LightDL(dataset, **{**STREAM, "balance": "slide"}) as loader,
        pytest.raises(StateError),
    ):
        loader.load_state_dict(state)
    address = f"ipc://{tmp_path}/s"
    settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
    spec = configure_service(dataset, arguments(**{**wish, "batch_slots": 0}), settings)
    with closing(ServiceProcess(spec)), connect(address, rank=0, world_size=1) as consumer:
        assert [batch_digest(consumer.next_batch(60)) for _ in range(10)] == expected[:10]


def test_a_category_that_has_lost_its_slides_ends_the_stream(folder: Path, tmp_path: Path) -> None:
    """Its weight cannot be kept; one of several slides is replaced by others of its category."""
    text = (folder / "list.csv").read_text().replace("s0.tif", "gone.tif")
    (tmp_path / "gone.tif").write_bytes(b"II*\0 no slide")
    for number in range(1, 8):
        (tmp_path / f"s{number}.tif").symlink_to(folder / f"s{number}.tif")
    (tmp_path / "list.csv").write_text(text)
    dataset = Dataset.from_csv(tmp_path / "list.csv")
    stream = {**STREAM, "on_error": "substitute", "balance": ["grade"]}
    with pytest.raises(SlideError), LightDL(dataset, **stream) as loader:
        drawn(loader, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": RoundRobin()}, "balance and schedule both choose"),
        ({"grid": True, "smallchunks_per_bigchunk": None}, "a grid has each position once"),
        ({"balance": ["stage"]}, "has no value of 'stage'"),
        ({"balance": {"slide_weights": "grade"}}, "is 'high', not 0 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(
    dataset: Dataset, given: dict[str, Any], message: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=message):
        LightDL(dataset, **{**STREAM, "balance": "slide", **given})
