"""Labels that consumers of a service get are those of `LightDL`, in value and type."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.connect import connect
from chunkdl.dataset.labels import Label
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from chunkdl.service.spec import PatientFacts, ServiceSpec
from chunkdl.slides.synthetic.writing import CoordinateSlide
from chunkdl.transport.protocol.codec import decode_service, encode
from chunkdl.transport.protocol.service_messages import CataloguePage
from chunkdl_workers.catalogue import page
from tests.service.conftest import GROUPS, arguments
from tests.service.two_ranks import addresses

NAMES = ("grade", "hot", "score", "her2", "site", "stain", "gone", "slide_index", "patient_index")


@pytest.fixture
def labelled(coordinate_slides: dict[str, CoordinateSlide]) -> Dataset:
    """Three slides of two patients with labels of every kind, from Python."""
    first, second, third = [
        Record("", path, {}, {"site": site, "hot": hot})
        for path, site, hot in zip(
            coordinate_slides,
            ("lung", None, "liver"),
            (np.array([0, 1]), torch.tensor([1, 1]), (1, 0)),
            strict=True,
        )
    ]
    return Dataset(
        "labelled",
        [
            Patient(7, {"a": first, "b": second, "grade": np.int32(3), "score": np.float32(0.1)}),
            Patient(9, {"a": third, "grade": 4, "score": math.nan, "her2": True, "stain": "PAS"}),
        ],
    )


@pytest.fixture
def served(
    labelled: Dataset, small_stream: dict[str, Any], socket_folder: Path
) -> Iterator[tuple[str, str]]:
    """The addresses of a service of it on this machine, and by tcp."""
    binds = addresses(socket_folder)
    given = arguments(**{**small_stream, "batch_slots": 0, "tissue": "none"})
    settings = ServiceSettings(binds=binds, groups=GROUPS, max_consumers=4, insecure=True)
    service = ServiceProcess(configure_service(labelled, given, settings))
    yield binds
    service.close()


def labels_of(batch: Batch) -> dict[str, tuple[Any, str]]:
    """What the columns hold, and of which type they are."""
    return {
        name: (batch[name].dtype, repr(batch[name].tolist()))
        if isinstance(batch[name], torch.Tensor)
        else (list, repr(batch[name]))
        for name in NAMES
        if name in batch
    }


def test_consumers_have_the_labels_of_lightdl(
    labelled: Dataset, small_stream: dict[str, Any], served: tuple[str, str]
) -> None:
    """Of slides and of patients, local and remote; of several services one behind the other."""
    with LightDL(labelled, tissue="none", **small_stream) as loader:
        expected = [labels_of(loader.next_batch(60)) for _ in range(12)]
    assert expected[0].keys() == {*NAMES} - {"gone"}
    types = {name: kind for name, (kind, _) in expected[0].items()}
    assert types == {
        **dict.fromkeys(("grade", "hot", "slide_index", "patient_index"), torch.int64),
        **dict.fromkeys(("score", "her2"), torch.float64),
        **dict.fromkeys(("site", "stain"), list),
    }
    assert len({values for batch in expected for values in [batch["slide_index"][1]]}) > 1
    for address in served:
        with connect(address, "trials") as consumer:
            assert [labels_of(consumer.next_batch(60)) for _ in range(12)] == expected
    with connect(list(served), "trials") as both:
        batch = both.next_batch(60)
    parts = labels_of(batch)
    assert {name: kind for name, (kind, _) in parts.items()} == types
    assert batch["site"][:8] == batch["site"][8:]


def test_patients_of_a_consumer_have_lists_again(served: tuple[str, str]) -> None:
    """Whatever a message makes of them."""
    with connect(served[1], "trials") as consumer:
        patients = {p.int_uniqueid: p for p in consumer.next_batch(60).patients}
    assert patients[7].labels["grade"] == 3
    assert patients[7].labels["score"] == pytest.approx(0.1)


def test_a_catalogue_of_any_size_comes_in_pages_that_fit(
    service_spec: Callable[..., ServiceSpec],
) -> None:
    """Each patient and slide once and in order, however long their labels are."""
    spec = service_spec()
    slides = tuple(replace(spec.config.slides[0], path=f"/{n}.tif") for n in range(1500))
    spec = replace(
        spec,
        config=replace(spec.config, slides=slides),
        patients=(
            *(PatientFacts(id=n, name=str(n), labels={"text": "x" * 400}) for n in range(150)),
            PatientFacts(id=150, name="long", labels={"text": "x" * 32_000}),
        ),
        slide_labels=tuple({"hot": tuple(range(n % 40))} for n in range(1500)),
    )
    names: list[bytes] = []
    found: list[tuple[bytes, dict[str, Label]]] = []
    while len(names) < 151 or len(found) < 1500:
        answer = decode_service(encode(page(spec, len(names), len(found))))
        assert isinstance(answer, CataloguePage)
        assert answer.patients or answer.slides
        names += [name for _, name, _ in answer.patients]
        found += answer.slides
    assert names == [b"%d" % n for n in range(150)] + [b"long"]
    assert found == [(b"/%d.tif" % n, {"hot": tuple(range(n % 40))}) for n in range(1500)]
