"""Transforms and collate functions: where they run, what they get, what they may return."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from chunkdl import Dataset, LightDL
from chunkdl.errors import ConfigError, HookError
from tests.processes.torch_hooks import TorchTransform

Processes = Callable[..., list[psutil.Process]]


def has_torch(process: psutil.Process) -> bool:
    """Whether a process has loaded torch."""
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def test_a_transform_of_torch_is_seeded_and_has_one_thread(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """The same for two collectors; only the collectors load torch, and each uses one thread."""
    streams = []
    for collectors in (1, 2):
        arguments = {**small_stream, "num_collectors": collectors, "tfms": TorchTransform()}
        with LightDL(coordinate_dataset, **arguments) as loader:
            streams.append(torch.cat([loader.get(60)[0] for _ in range(20)]))
            assert all(map(has_torch, processes_of_this_run("collector")))
            for program in ("loader", "coordinator"):
                assert not any(map(has_torch, processes_of_this_run(program)))

    assert streams[0].dtype == torch.float32
    assert torch.equal(*streams)
    assert (streams[0][:, 3] == 1).all()
    assert len(set(streams[0][:, 0].flatten().tolist())) == len(streams[0])


def without_torch(crop: Any) -> Any:
    """What crops and transforms do most of the time."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[:, :8, :8], np.float32)


without_torch.__module__ = "__main__"  # so that it travels by value, not as a name of this module


def test_no_worker_loads_torch_for_a_transform_that_does_not(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """It would cost seconds and hundreds of MB in every one of them."""
    with LightDL(coordinate_dataset, tfms=without_torch, **small_stream) as loader:
        x, _, smallchunks = loader.get(60)
        assert not any(map(has_torch, processes_of_this_run()))

    assert x.shape == (16, 3, 8, 8)
    assert x.dtype == torch.float32
    assert smallchunks[0].dict_info_of_smallchunk["level"] == 0


def test_a_transform_of_the_training_process_runs_there(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Once for each SmallChunk, with its pixels; what it holds is sent nowhere."""
    seen: list[Any] = []

    def transform(crop: Any) -> Any:
        seen.append((os.getpid(), crop.shape))
        return crop[:4, :4].astype(np.float32)

    with LightDL(coordinate_dataset, tfms=transform, tfms_in="consumer", **small_stream) as loader:
        x, patients, smallchunks = loader.get(60)
        others = [loader.next_batch(60), next(iter(loader)), next(iter(loader.dataset_view()))]

    assert seen == [(os.getpid(), (64, 64, 3))] * 64
    assert x.shape == (16, 4, 4, 3)
    assert len(patients) == len(smallchunks) == 16
    assert torch.equal(x[5], torch.as_tensor(smallchunks[5].data[:4, :4]).float())
    assert [batch["image"].shape for batch in others] == [(16, 4, 4, 3)] * 3


def test_a_transform_in_a_collector_gets_what_one_here_gets(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """The same crop, so the same results."""

    def transform(crop: Any) -> Any:
        return crop[::2, ::2].astype(np.float64) / 3

    batches = []
    for where in ("collectors", "consumer"):
        with LightDL(coordinate_dataset, tfms=transform, tfms_in=where, **small_stream) as loader:
            batches.append([loader.get(60)[0] for _ in range(5)])

    assert all(map(torch.equal, *batches))


class OwnGenerator:
    """A transform with a generator of its own, as albumentations' have."""

    def __init__(self) -> None:
        self.generator = random.Random()

    def set_random_seed(self, seed: int) -> None:
        self.generator.seed(seed)

    def __call__(self, crop: Any) -> float:
        return self.generator.random()


OwnGenerator.__module__ = "__main__"


def test_a_generator_inside_a_transform_is_seeded_too(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Also inside a function that closes over it: reproducible, and never the same twice."""
    inner = OwnGenerator()

    def transform(crop: Any) -> Any:
        return np.float64(inner(crop))

    streams = []
    for collectors in (1, 2):
        arguments = {**small_stream, "num_collectors": collectors, "tfms": transform}
        with LightDL(coordinate_dataset, **arguments) as loader:
            streams.append(torch.cat([loader.get(60)[0] for _ in range(10)]))

    assert torch.equal(*streams)
    assert len(set(streams[0].flatten().tolist())) == 160


def test_results_of_different_shapes_are_refused(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """With both shapes, the name of the transform and the patient."""

    def ragged(crop: Any) -> Any:
        return crop[: 8 + int(crop[0, 0, 0]) % 9]

    with (
        LightDL(coordinate_dataset, tfms=ragged, **small_stream) as loader,
        pytest.raises(
            HookError, match=r"uint8 \(\d+, 64, 3\), those before it were uint8"
        ) as caught,
    ):
        for _ in range(20):
            loader.get(60)

    assert "ragged" in caught.value.hook
    assert caught.value.patient in {patient.name for patient in coordinate_dataset}


def test_results_that_make_no_tensor_are_told_so(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """The columns have them, get() says what to do."""

    def words(crop: Any) -> Any:
        return {"mean": float(crop.mean()), "of": "a crop"}

    with LightDL(coordinate_dataset, tfms=words, **small_stream) as loader:
        assert [set(data) for data in loader.next_batch(60)["data"]] == [{"mean", "of"}] * 16
        with pytest.raises(ConfigError, match="give a collate_func"):
            loader.get(60)


def test_a_collate_function_gets_chunks_with_pixels_and_the_transform(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """As in PyDmed it applies the transform itself, here; nobody else does."""

    def collate(chunks: list[Any], tfms: Any) -> Any:
        return [(chunk.data.shape, tfms(chunk.data), chunk.patient) for chunk in chunks]

    with LightDL(
        coordinate_dataset, tfms=np.ndarray.mean, collate_func=collate, **small_stream
    ) as loader:
        ways = [loader.next_batch(60), loader.get(60), next(iter(loader))]
        rows = next(iter(loader.dataset_view()))

    assert [len(way) for way in ways] == [16] * 3
    assert [shape for shape, _, _ in rows] == [(64, 64, 3)] * 16
    assert all(0 <= mean <= 255 for _, mean, _ in rows)
    assert {patient.name for _, _, patient in rows} <= {p.name for p in coordinate_dataset}
