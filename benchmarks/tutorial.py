"""The recipe of PyDmed's tutorial as a program: ``python -m benchmarks.tutorial``.

A random 5000x5000 region of each loaded patient with OpenSlide, random patches of 224 out of it,
made into float tensors: on PyDmed's architecture, or on chunkdl with PyDmed's interface. Prints one
JSON line with the figures of `benchmarks.peers.Result` and SmallChunks per BigChunk.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.peers import BATCH
from benchmarks.pydmed_architecture import PydmedArchitecture
from benchmarks.tutorial_recipe import (
    BIGCHUNK_PX,
    SMALLCHUNK_PX,
    tutorial_bigchunk,
    tutorial_smallchunk,
)
from chunkdl import Dataset, Patient, Record
from chunkdl.pydmed.lightdl import (
    BigChunk,
    BigChunkLoader,
    LightDL,
    SmallChunk,
    SmallChunkCollector,
    get_default_constglobinf,
)

PATIENTS = 20
LOADERS = 5
"""As in the author's later sample: with ten, PyDmed's serial start takes minutes on two cores."""
QUEUE, INTERVAL_S = 40, 2.0


class TutorialLoader(BigChunkLoader):
    """The tutorial's loader."""

    def extract_bigchunk(self, last_message: Any) -> BigChunk:
        """A random region."""
        return tutorial_bigchunk(self.patient)


class TutorialCollector(SmallChunkCollector):
    """The tutorial's collector."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message: Any) -> SmallChunk:
        """A random patch."""
        return tutorial_smallchunk(call_count, bigchunk)


def to_tensor(patch: npt.NDArray[np.uint8]) -> torch.Tensor:
    """What torchvision's ToTensor makes of a patch."""
    return torch.from_numpy(np.ascontiguousarray(patch.transpose(2, 0, 1))).float().div_(255)


def dataset_of(slides: Sequence[str]) -> Dataset:
    """Patients with a slide each; a slide serves several."""
    records = [Record("", slides[number % len(slides)]) for number in range(PATIENTS)]
    return Dataset("tutorial", [Patient(n, {"slide": record}) for n, record in enumerate(records)])


def on_pydmed(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe on PyDmed's architecture."""
    dataset = dataset_of(options.slides)
    with PydmedArchitecture(
        dataset,
        tutorial_bigchunk,
        tutorial_smallchunk,
        batch_size=BATCH,
        tfms=to_tensor,
        num_bigchunkloaders=LOADERS,
        maxlength_queue_smallchunk=QUEUE,
        maxlength_queue_lightdl=200,
        interval_resched_s=INTERVAL_S,
    ) as loader:
        loader.get(600)
        _take(lambda: loader.get(120), options.warmup)
        before = loader.loads
        batches, seconds = _take(lambda: loader.get(120), options.seconds)
        loads = loader.loads - before
    return _figures(batches, seconds, batches * BATCH / max(1, loads))


def on_chunkdl(options: argparse.Namespace) -> dict[str, Any]:
    """The same classes on chunkdl, with the same SmallChunks per BigChunk."""
    settings = get_default_constglobinf()
    settings["num_bigchunkloaders"] = LOADERS
    loader = LightDL(
        dataset_of(options.slides),
        TutorialLoader,
        TutorialCollector,
        settings,
        BATCH,
        to_tensor,
        smallchunks_per_bigchunk=options.calls,
    )
    loader.start()
    try:
        loader.get()
        _take(loader.get, options.warmup)
        batches, seconds = _take(loader.get, options.seconds)
    finally:
        loader.pause_loading()
    return _figures(batches, seconds, options.calls)


def start(options: argparse.Namespace) -> dict[str, Any]:
    """Ten BigChunks at a time: the time to the first batch, beside that of the slowest load."""
    dataset = dataset_of(options.slides)
    settings = get_default_constglobinf()
    single = []
    for patient in list(dataset)[: settings["num_bigchunkloaders"]]:
        begun = time.perf_counter()
        tutorial_bigchunk(patient)
        single.append(time.perf_counter() - begun)
    loader = LightDL(dataset, TutorialLoader, TutorialCollector, settings, BATCH, None)
    begun = time.perf_counter()
    loader.start()
    try:
        loader.get()
        first_s = time.perf_counter() - begun
    finally:
        loader.pause_loading()
    return {**_figures(1, first_s, 0), "slowest_load_s": max(single), "first_batch_s": first_s}


def _take(get: Any, seconds: float) -> tuple[int, float]:
    """Take batches for some time."""
    begun, batches = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds:
        get()
        batches += 1
    return batches, elapsed


def _figures(batches: int, seconds: float, calls: float) -> dict[str, Any]:
    decoded = batches * BATCH / calls * BIGCHUNK_PX**2 if calls else 0
    return {
        "patches": batches * BATCH,
        "seconds": seconds,
        "decoded_px": round(decoded),
        "distinct": 0,
        "smallchunks_per_bigchunk": calls,
        "reuse": batches * BATCH * SMALLCHUNK_PX**2 / decoded if decoded else 0.0,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program that the command line names and print its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorial", description=__doc__)
    parser.add_argument("program", choices=("pydmed", "chunkdl", "start"))
    parser.add_argument("--slides", nargs="+", required=True)
    parser.add_argument("--calls", type=int, default=100, help="SmallChunks per BigChunk")
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    programs = {"pydmed": on_pydmed, "chunkdl": on_chunkdl, "start": start}
    print(json.dumps(programs[options.program](options)))


if __name__ == "__main__":
    main()
