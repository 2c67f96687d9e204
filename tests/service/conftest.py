"""What the tests of the service share: datasets with everything in them, and running services."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.service.spec import ServiceSpec
from tests.service.digests import row_digests as row_digests

GROUPS = (GroupSpec(name="train"), GroupSpec(name="trials", mode="broadcast"))


def arguments(**given: Any) -> Arguments:
    """Arguments of a stream: the defaults, which are those of `LightDL`, with the given ones."""
    return Arguments(**given)


Start = Callable[..., tuple[ServiceProcess, str]]


@pytest.fixture
def socket_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name, for sockets."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def service_spec(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], socket_folder: Path
) -> Callable[..., ServiceSpec]:
    """Makes the specification of a service: `stream` arguments, and `ServiceSettings` fields."""
    numbers = itertools.count()

    def make(stream: dict[str, Any] | None = None, **settings: Any) -> ServiceSpec:
        given = {**small_stream, "batch_slots": 0, **(stream or {})}
        local = f"ipc://{socket_folder}/{next(numbers)}"
        fields: dict[str, Any] = {"binds": (local,), "groups": GROUPS, "max_consumers": 4}
        # Most tests are about what travels, not about who may connect.
        fields["insecure"] = settings.get("keys") is None
        own = ServiceSettings(**{**fields, **settings})
        return configure_service(coordinate_dataset, arguments(**given), own)

    return make


@pytest.fixture
def start(service_spec: Callable[..., ServiceSpec]) -> Iterator[Start]:
    """Starts services; all are ended after the test."""
    running: list[ServiceProcess] = []

    def begin(**given: Any) -> tuple[ServiceProcess, str]:
        spec = service_spec(**given)
        running.append(ServiceProcess(spec))
        return running[-1], spec.binds[0]

    yield begin
    for service in running:
        service.close()


@pytest.fixture(scope="session")
def row_reference(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> tuple[str, ...]:
    """Digests of the first rows of the small stream, in their order, as `LightDL` gives them."""
    rows: list[str] = []
    with LightDL(coordinate_dataset, **small_stream) as loader:
        for _ in range(120):
            rows += row_digests(loader.next_batch(60))
    return tuple(rows)
