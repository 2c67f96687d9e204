"""The streams are those of yesterday: what a seed gives changes only where somebody means it to.

`known_streams.json` holds the SHA-256 of 200 batches of ten streams. Who changes what a seed gives
raises a version in `rules`, and writes them anew: ``python -m tests.test_known_streams``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from chunkdl import Dataset, LightDL, Patient, Record, connect
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.conftest import ragged_mask
from tests.processes.hook_classes import NumberCollector, NumberLoader, random_transform
from tests.processes.policies import ByChance
from tests.service.conftest import arguments

KNOWN = Path(__file__).with_name("known_streams.json")
BATCHES = 200
STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": 64,
    "bigchunk_size": 512,
    "num_bigchunks": 6,
    "smallchunks_per_bigchunk": 40,
    "tissue_threshold": 0.5,
    "num_loaders": 2,
    "num_collectors": 2,
    "seed": 3,
}


def slides_in(folder: Path) -> Dataset:
    """Two patients with three slides, the same wherever they lie."""
    records = []
    for number in range(3):
        path = str(folder / f"slide-{number}.tif")
        write_coordinate_slide(
            path, 1500, 1248, slide_id=number, tile=128, levels=(1, 2, 4), mpp=0.25
        )
        records.append(Record("/", path[1:], {"tissue_mask": ragged_mask(number)}))
    first = Patient(7, {"a": records[0], "b": records[1], "label": 1})
    return Dataset("known", [first, Patient(9, {"a": records[2], "label": 0})])


def digest(batch: Any) -> str:
    """SHA-256 over the rows of a batch and where they are from."""
    found = hashlib.sha256()
    for name in sorted(batch):
        if isinstance(batch[name], torch.Tensor):
            found.update(f"{name} {batch[name].shape}".encode())
            found.update(batch[name].contiguous().numpy().tobytes())
    found.update("|".join(Path(slide).name for slide in batch["slide"]).encode())
    return found.hexdigest()


def some(batches: Iterable[Any], most: int = BATCHES) -> Iterator[str]:
    """The digests of the first batches."""
    for _, batch in zip(range(most), batches, strict=False):
        yield digest(batch)


def endless(loader: Any) -> Iterator[Any]:
    """The batches of a loader, one after the other."""
    while True:
        yield loader.next_batch(60)


def embedded(dataset: Dataset, **given: Any) -> list[str]:
    """Batches of `LightDL`."""
    with LightDL(dataset, **{**STREAM, **given}) as loader:
        return list(some(endless(loader)))


def passes(dataset: Dataset) -> list[str]:
    """Grid passes, one after the other."""
    found: list[str] = []
    with LightDL(dataset, **STREAM, grid=True, drop_last=False) as loader:
        while len(found) < BATCHES:
            found += some(loader, BATCHES - len(found))
    return found


def resumed(dataset: Dataset) -> list[str]:
    """A stream that is left and gone on with, after 77 batches."""
    with LightDL(dataset, **STREAM) as loader:
        found = list(some(endless(loader), 77))
        state = json.loads(json.dumps(loader.state_dict()))
    with LightDL(dataset, **STREAM) as loader:
        loader.load_state_dict(state)
        return found + list(some(endless(loader), BATCHES - 77))


def serve(stack: ExitStack, dataset: Dataset, **given: Any) -> str:
    """The address of a service."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s"))
    own = ServiceSettings(
        binds=(f"ipc://{folder}/s",),
        groups=(GroupSpec(name="train"), GroupSpec(name="all", mode="broadcast")),
        max_consumers=4,
    )
    stream = arguments(**{**STREAM, "batch_slots": 0, **given})
    service = ServiceProcess(configure_service(dataset, stream, own))
    stack.callback(service.close)
    return f"ipc://{folder}/s"


def broadcast(dataset: Dataset) -> list[str]:
    """Batches of a member of a group that all get everything."""
    with ExitStack() as stack, connect(serve(stack, dataset), group="all") as loader:
        return list(some(endless(loader)))


def ranks(dataset: Dataset) -> list[str]:
    """Batches of two ranks in turn."""
    with ExitStack() as stack:
        address = serve(stack, dataset)
        loaders = [
            stack.enter_context(connect(address, rank=rank, world_size=2, batch_size=8))
            for rank in range(2)
        ]
        return [digest(loader.next_batch(60)) for _ in range(BATCHES // 2) for loader in loaders]


def several(dataset: Dataset) -> list[str]:
    """Batches of two services as one."""
    with ExitStack() as stack:
        addresses = [serve(stack, dataset, seed=seed) for seed in (3, 4)]
        with connect(addresses) as loader:
            return list(some(endless(loader)))


def told_by_hooks(dataset: Dataset) -> list[str]:
    """Batches of a user's classes."""
    return embedded(
        dataset,
        type_bigchunkloader=NumberLoader,
        type_smallchunkcollector=NumberCollector,
        const_global_info={},
    )


STREAMS: dict[str, Callable[[Dataset], list[str]]] = {
    "endless": embedded,
    "grid": passes,
    "resampled": lambda dataset: embedded(dataset, mpp=0.4),
    "transformed": lambda dataset: embedded(dataset, tfms=random_transform),
    "hooks": told_by_hooks,
    "schedule": lambda dataset: embedded(dataset, schedule=ByChance()),
    "relaxed, sorted": lambda dataset: sorted(embedded(dataset, order="relaxed")),
    "resumed": resumed,
    "broadcast": broadcast,
    "ranks": ranks,
    "several services": several,
}


def whole(digests: list[str]) -> str:
    """One digest of many."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The slides of the known streams."""
    return slides_in(tmp_path_factory.mktemp("known"))


@pytest.mark.parametrize("name", STREAMS)
def test_a_seed_gives_what_it_gave(name: str, dataset: Dataset) -> None:
    """The rows of 200 batches are those that were written down."""
    digests = STREAMS[name](dataset)
    assert len(digests) == BATCHES
    assert whole(digests) == json.loads(KNOWN.read_text())[name]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as kept:
        here = slides_in(Path(kept))
        found = {name: whole(make(here)) for name, make in STREAMS.items()}
    json.dump(found, sys.stdout, indent=1)
    KNOWN.write_text(json.dumps(found, indent=1) + "\n")
