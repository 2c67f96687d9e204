"""The stream that the Midnight models were trained on, by chunkdl and by wsistream.

Patches of 256 pixels at 0.25, 0.5, 1 and 2 micrometres a pixel, equally often, with at least 40 %
tissue, of which at least 60 % of the pixels lie in ranges of hue, saturation and value (Karasikov
et al., arXiv 2504.05186). The tissue network of the paper is not published; both loaders here use
Otsu's threshold. ``python -m benchmarks.midnight_recipe chunkdl ...`` is one program of
`benchmarks.sampling` and prints one JSON line, the `Result` of `benchmarks.peers`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import BATCH, STATISTICS_EVERY, WORKERS, Place, Result, check, consume

SIDE = 256
MPP = (0.25, 0.5, 1.0, 2.0)
TISSUE = 0.4

Rows = dict[str, npt.NDArray[Any]]
"""Of rows that were delivered: slide, mpp (micrometres a pixel), tissue_fraction."""


class Delivered:
    """What was delivered, for the picture of the docs."""

    def __init__(self) -> None:
        self._batches: list[tuple[Any, Any, Any]] = []

    def add(self, slide: Sequence[str], mpp: Any, tissue_fraction: Any) -> None:
        """Add the rows of a batch."""
        self._batches.append(
            ([Path(one).stem for one in slide], np.asarray(mpp), np.asarray(tissue_fraction))
        )

    def rows(self) -> Rows:
        """All of them."""
        names = ("slide", "mpp", "tissue_fraction")
        columns = zip(*self._batches, strict=True)
        return {n: np.concatenate(list(c)) for n, c in zip(names, columns, strict=True)}


def chunkdl_batches(
    slides: Sequence[Path], delivered: Delivered, *, nearest: bool
) -> Iterator[Sequence[Place]]:
    """Batches of chunkdl.

    Args:
        slides: paths.
        delivered: gets what is delivered.
        nearest: from the nearest level as it is, as wsistream reads them; else exactly at the
            wished resolutions, as far as a slide is fine enough for them.
    """
    from chunkdl import Dataset, LightDL

    as_wsistream: dict[str, Any] = {"resolution_policy": "nearest", "max_relative_deviation": 100}
    wished: dict[str, Any] = {"max_relative_deviation": 0.1}

    with LightDL(
        Dataset.from_slides(list(map(str, slides))),
        batch_size=BATCH,
        smallchunk_size=SIDE,
        mpp=dict.fromkeys(MPP, 1),
        tissue_threshold=TISSUE,
        pixel_filter="midnight",
        **(as_wsistream if nearest else wished),
    ) as loader:
        while True:
            batch = loader.next_batch(60)
            check(batch["image"], SIDE)
            delivered.add(batch["slide"], batch["mpp"], batch["tissue_fraction"])
            yield list(zip(batch["slide"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


def wsistream_batches(
    slides: Sequence[Path], delivered: Delivered, backend: str, start: str
) -> Iterator[Sequence[Place]]:
    """Batches of wsistream; slides stay open and masks stay cached."""
    from torch.utils.data import DataLoader
    from wsistream.backends import OpenSlideBackend, TiffSlideBackend
    from wsistream.filters import HSVPatchFilter
    from wsistream.sampling import MultiMagnificationSampler
    from wsistream.tissue import OtsuTissueDetector
    from wsistream.torch import WsiStreamDataset

    dataset = WsiStreamDataset(
        slide_paths=[str(slide) for slide in slides],
        backend={"openslide": OpenSlideBackend, "tiffslide": TiffSlideBackend}[backend](),
        tissue_detector=OtsuTissueDetector(),
        sampler=MultiMagnificationSampler(
            target_mpps=list(MPP), patch_size=SIDE, tissue_threshold=TISSUE
        ),
        patch_filter=HSVPatchFilter(),
        pool_size=len(slides),
        patches_per_slide=100_000,
        tissue_mask_cache_size=len(slides),
        cycle=True,
        output_dtype="uint8",
        seed=0,
    )
    loader = DataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, multiprocessing_context=start
    )
    for number, batch in enumerate(loader):
        check(batch["image"], SIDE)
        if number % STATISTICS_EVERY == 0:
            # Its workers write statistics into a pipe and hang when nobody ever reads it.
            dataset.stats_dict()
        delivered.add(batch["slide_path"], batch["mpp"], batch["tissue_fraction"])
        yield list(zip(batch["slide_path"], batch["x"].tolist(), batch["y"].tolist(), strict=True))


def run(options: argparse.Namespace) -> tuple[Result, Rows]:
    """The figures of a run, and the rows that it has delivered."""
    delivered = Delivered()
    if options.loader == "chunkdl":
        batches = chunkdl_batches(options.slides, delivered, nearest=options.nearest)
    else:
        batches = wsistream_batches(options.slides, delivered, options.backend, options.start)
    result = consume(batches, options.warmup, options.seconds, at_level_0=False)
    return result, delivered.rows()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the loader that the command line names and print its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.midnight_recipe")
    parser.add_argument("loader", choices=("chunkdl", "wsistream"))
    parser.add_argument("--slides", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--backend", choices=["openslide", "tiffslide"], default="openslide")
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork")
    parser.add_argument("--nearest", action="store_true", help="levels as they are (chunkdl)")
    parser.add_argument("--save", type=Path, help="where the delivered rows are written, as .npz")
    options = parser.parse_args(arguments)
    result, rows = run(options)
    if options.save is not None:
        np.savez_compressed(options.save, **rows)  # type: ignore[arg-type]
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
