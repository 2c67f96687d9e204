"""chunkdl itself as one program of the benchmark: ``python -m benchmarks.stream ...``.

Prints one JSON line with the figures of `benchmarks.peers.Result` and, beside them, what only a
chunkdl stream has: measured reuse, BigChunks and patients in a batch, the time to the first batch,
processor time of the training process per batch, memory of the process tree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from benchmarks.peers import BATCH, PATCH, TISSUE_THRESHOLD
from chunkdl import Dataset, LightDL
from chunkdl.patches.tissue_hooks import TissueBigChunkLoader, TissueSmallChunkCollector

torch.set_num_threads(1)


class SameLoader(TissueBigChunkLoader):
    """What the built-in loader does, as a class of the user."""


class SameCollector(TissueSmallChunkCollector):
    """What the built-in collector does, as a class of the user."""


def stream(options: argparse.Namespace) -> dict[str, Any]:
    """Run the stream for the warm-up and the measured time."""
    dataset = Dataset.from_slides(options.slides)
    begun = time.perf_counter()
    hooks: dict[str, Any] = {}
    if options.hooks:
        hooks = {
            "type_bigchunkloader": SameLoader,
            "type_smallchunkcollector": SameCollector,
            "smallchunks_per_bigchunk": options.hooks,
            # Four patients, 32 BigChunks: as the built-in classes do it.
            "flag_enable_setgetcheckpoint": False,
        }
    with LightDL(
        dataset,
        **hooks,
        batch_size=BATCH,
        smallchunk_size=options.patch,
        tissue_threshold=TISSUE_THRESHOLD,
        mpp=dict.fromkeys(options.mpp, 1) if options.mpp else None,
        pixel_filter=(
            {"name": options.pixel_filter, "step": options.step} if options.pixel_filter else None
        ),
        reuse=options.reuse,
        reader=options.reader,
        order=options.order,
    ) as loader:
        loader.get(timeout=60)
        first_s = time.perf_counter() - begun
        end = time.perf_counter() + options.warmup
        while time.perf_counter() < end:
            loader.get(timeout=60, copy=options.copy)
        before, cpu = loader.stats(60), time.process_time()
        places: set[tuple[str, int, int]] = set()
        bigchunks, patients, batches = [], [], 0
        start = time.perf_counter()
        looked_at_s = 0.0
        while (elapsed := time.perf_counter() - start) < options.seconds:
            batch = loader.next_batch(60, copy=options.copy)
            batches += 1
            if batches % 8 == 0:
                # Looking at every batch would be most of what this process does.
                look = time.process_time()
                bigchunks.append(len(set(batch["bigchunk"].tolist())))
                patients.append(len(set(batch["patient"])))
                places.update(
                    zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True)
                )
                looked_at_s += time.process_time() - look
        cpu = time.process_time() - cpu - looked_at_s
        after = loader.stats(60)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        memory = sum(process.memory_full_info().pss for process in processes)
    decoded = (after.decoded_mpx - before.decoded_mpx) * 1e6
    return {
        "patches": batches * BATCH,
        "seconds": elapsed,
        "decoded_px": int(decoded),
        "distinct": round(len(places) / max(1, len(bigchunks)) * batches),
        "reuse": (after.delivered_mpx - before.delivered_mpx) * 1e6 / decoded if decoded else 0.0,
        "decoded_share": after.decoded_share,
        "refused_share": after.refused_share,
        "smallchunks_per_bigchunk": after.smallchunks_per_bigchunk,
        "bigchunks_per_batch": statistics.mean(bigchunks),
        "patients_per_batch": statistics.mean(patients),
        "first_batch_s": first_s,
        "trainer_ms_per_batch": cpu / batches * 1000,
        "memory_mib": memory / 2**20,
        "processes": len(processes),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stream that the command line describes and print its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--slides", nargs="+", required=True)
    parser.add_argument("--reader", default="tiff")
    parser.add_argument("--reuse", type=float, default=1.0)
    parser.add_argument("--patch", type=int, default=PATCH)
    parser.add_argument("--mpp", type=float, nargs="+", help="equally often each of them")
    parser.add_argument("--pixel-filter")
    parser.add_argument("--step", type=int, default=1, help="of the pixel filter")
    parser.add_argument("--order", default="strict", choices=("strict", "relaxed"))
    parser.add_argument(
        "--hooks", type=int, metavar="N", help="as classes of the user, N SmallChunks per BigChunk"
    )
    parser.add_argument("--copy", action="store_true", default=None)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, required=True)
    print(json.dumps(stream(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
