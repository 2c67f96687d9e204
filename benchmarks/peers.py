"""Other ways to get patches, each one program: ``python -m benchmarks.peers NAME ...``.

Each prints one JSON line, the `Result`. The loaders deliver batches of 64 uint8 patches of
224 x 224 pixels of level 0, at random tissue positions, from two workers; all slides give equally
many. Each is set up as well as its documentation allows. No chunkdl code runs here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from benchmarks.limit import decode_limit, tissue_mask

PATCH = 224
BATCH = 64
WORKERS = 2
TISSUE_THRESHOLD = 0.4
STATISTICS_EVERY = 50

Place = tuple[str, int, int]
"""Slide, and the top-left corner of a patch in level-0 pixels."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a program did in its measured time, after its warm-up.

    Attributes:
        patches: delivered to the consumer; for the decode limit, what its pixels would make.
        seconds: between the end of the warm-up and the last of these patches.
        decoded_px: pixels of the tiles that had to be decoded for them.
        distinct: how many different (slide, x, y) there are among them, 0 for the decode limit.
    """

    patches: float
    seconds: float
    decoded_px: int
    distinct: int


def limit(slides: Sequence[Path], warmup: float, seconds: float) -> Result:
    """The decode limit, in patches: decoded pixels divided by the pixels of a patch."""
    done = decode_limit(slides, warmup, seconds)
    patches = done.pixels / PATCH**2
    return Result(patches, done.seconds, done.pixels, distinct=0)


def consume(
    batches: Iterator[Sequence[Place]], warmup: float, seconds: float, *, at_level_0: bool = True
) -> Result:
    """Take batches for `warmup` seconds from the first, then count those within `seconds`.

    What was decoded is known only of patches of `PATCH` pixels at level 0.
    """
    next(batches)
    end = time.perf_counter() + warmup
    while time.perf_counter() < end:
        next(batches)
    places: list[Place] = []
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        places += next(batches)
    decoded_px = touched_px(places) if at_level_0 else 0
    return Result(len(places), elapsed, decoded_px, len(set(places)))


def touched_px(places: Sequence[Place]) -> int:
    """Pixels of the level-0 tiles under these patches, each patch on its own.

    An upper bound of what was decoded: a reader's cache may have had some of the tiles.
    """
    total = 0
    for slide in {slide for slide, _, _ in places}:
        corners = np.array([(x, y) for name, x, y in places if name == slide])
        with tifffile.TiffFile(slide) as file:
            page = file.series[0].levels[0].keyframe
            tile = np.array([page.tilewidth, page.tilelength])
        tiles = (corners + PATCH - 1) // tile - corners // tile + 1
        total += int(tiles.prod(axis=1).sum() * tile.prod())
    return total


def check(images: Any, side_px: int = PATCH) -> None:
    """A peer that delivers something else would be measured at something else."""
    import torch

    if images.dtype != torch.uint8 or images.shape[0] != BATCH or side_px not in images.shape[1:3]:
        raise ValueError(f"expected {BATCH} uint8 patches, got {images.dtype} {images.shape}")


def wsistream(
    slides: Sequence[Path], warmup: float, seconds: float, *, backend: str, start: str
) -> Result:
    """The wsistream loader with a backend and a start method for its workers.

    Slides stay open and masks stay cached, and a draw that misses the tissue is tried again, so
    that nothing but reading is measured.
    """
    from torch.utils.data import DataLoader
    from wsistream.backends import OpenSlideBackend, TiffSlideBackend
    from wsistream.sampling import RandomSampler
    from wsistream.tissue import OtsuTissueDetector
    from wsistream.torch import WsiStreamDataset

    dataset = WsiStreamDataset(
        slide_paths=[str(slide) for slide in slides],
        backend={"openslide": OpenSlideBackend, "tiffslide": TiffSlideBackend}[backend](),
        tissue_detector=OtsuTissueDetector(),
        sampler=RandomSampler(
            patch_size=PATCH, level=0, tissue_threshold=TISSUE_THRESHOLD, max_retries=10_000
        ),
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

    def batches() -> Iterator[list[Place]]:
        for number, batch in enumerate(loader):
            check(batch["image"])
            if number % STATISTICS_EVERY == 0:
                # Its workers write statistics into a pipe and hang when nobody ever reads it.
                dataset.stats_dict()
            yield list(
                zip(batch["slide_path"], batch["x"].tolist(), batch["y"].tolist(), strict=True)
            )

    return consume(batches(), warmup, seconds)


def torch_dataloader(slides: Sequence[Path], warmup: float, seconds: float) -> Result:
    """What one writes by hand: a DataLoader around OpenSlide's read_region.

    Slides stay open in each worker. A position is a pixel of the tissue mask drawn uniformly, and
    a random place within it.
    """
    from torch.utils.data import DataLoader

    # The class is not a subclass of torch's Dataset, so that the decode limit needs no torch.
    patches: Any = TissuePatches(slides)
    loader: DataLoader[Any] = DataLoader(patches, batch_size=BATCH, num_workers=WORKERS)

    def batches() -> Iterator[list[Place]]:
        for images, indices, corners in loader:
            check(images)
            names = (str(slides[index]) for index in indices.tolist())
            yield [(name, x, y) for name, (x, y) in zip(names, corners.tolist(), strict=True)]

    return consume(batches(), warmup, seconds)


class TissuePatches:
    """An endless map-style dataset: item i is the patch that a generator seeded with i draws."""

    def __init__(self, slides: Sequence[Path]) -> None:
        self._slides = tuple(slides)
        self._masks = [tissue_mask(slide) for slide in slides]
        self._tissue = [np.argwhere(mask) for mask in self._masks]
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, item: int) -> tuple[npt.NDArray[np.uint8], int, npt.NDArray[np.int64]]:
        """The patch (224, 224, 3) uint8, its slide's index, level-0 (x, y) of its corner."""
        import openslide

        rng = np.random.default_rng(item)
        index = int(rng.integers(len(self._slides)))
        if index not in self._open:
            self._open[index] = openslide.OpenSlide(self._slides[index])
        slide = self._open[index]
        size = np.array(slide.dimensions)
        pixel = rng.choice(self._tissue[index])[::-1] + rng.random(2)
        centre = pixel * size / self._masks[index].shape[::-1]
        corner = np.clip(centre - PATCH / 2, 0, size - PATCH).astype(np.int64)
        region = slide.read_region(tuple(corner.tolist()), 0, (PATCH, PATCH))
        return np.array(region)[..., :3], index, corner


PEERS: Mapping[str, Any] = {
    "limit": limit,
    "wsistream": wsistream,
    "torch-dataloader": torch_dataloader,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the peer that the command line names and print its result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--slides", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seconds", type=float, required=True, help="measured time")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before it (default 3)")
    parser.add_argument("--backend", choices=["openslide", "tiffslide"], default="openslide")
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork")
    given = parser.parse_args(arguments)
    options = {"backend": given.backend, "start": given.start} if given.name == "wsistream" else {}
    result = PEERS[given.name](given.slides, given.warmup, given.seconds, **options)
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
