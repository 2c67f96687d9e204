"""Draws the pictures of ``sampling.md``: ``python docs/sampling_pictures.py``.

Needs matplotlib. Every square is a row of a batch that a loader gave, at the place and of the size
that the columns of the batch say.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from chunkdl import Continuous, Dataset, HsvShare, LightDL, open_slide, write_tissue_slide
from chunkdl.slides.tissue.thumbnail import picture_plan, read_thumbnail

mpl.use("Agg")
plt.rcParams.update({"font.size": 9, "figure.dpi": 110})

FOLDER = Path(__file__).parent / "pictures"
WIDTH, HEIGHT, MPP = 6144, 4608, 0.5
SEED = 4
PATCH = 128
STREAM: Mapping[str, Any] = {
    "batch_size": 64,
    "smallchunk_size": PATCH,
    "bigchunk_size": 1024,
    "num_bigchunks": 64,
    "seed": SEED,
    "num_loaders": 1,
    "arrays": "numpy",
}
COLOURS = ("#0050ff", "#d80000", "#009030", "#ff7800", "#8000c0", "#00a0c0", "#804000", "#202020")

PURPLE = HsvShare(hue=(255, 305), least=0.8)
"""At least 80 % of the pixels of a patch are of the purple kind of tissue."""


@dataclass(frozen=True)
class Rows:
    """Rows that a loader gave, all arrays of shape (rows,).

    Attributes:
        x, y, side: of the squares, level-0 pixels.
        bigchunk: ordinal of the BigChunk.
        batch: number of the batch.
        mpp: microns per pixel.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    side: npt.NDArray[Any]
    bigchunk: npt.NDArray[Any]
    batch: npt.NDArray[Any]
    mpp: npt.NDArray[Any]


class Slide:
    """The slide of all pictures, and its thumbnail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "slide.tif"
        write_tissue_slide(self._path, WIDTH, HEIGHT, seed=SEED, mpp=MPP)
        slide = open_slide(self._path)
        pixels, _ = read_thumbnail(slide, picture_plan(slide.info, 700))
        slide.close()
        # Paler than it is, so that the squares can be seen.
        self.picture = (255 - (255 - pixels.astype(float)) * 0.45).astype(np.uint8)

    def rows(self, batches: int | None, **changes: Any) -> Rows:
        """The first batches of a stream with other settings than `STREAM`; None: all."""
        found: list[dict[str, Any]] = []
        settings = {**STREAM, "mask_cache": self._folder / "masks", **changes}
        with LightDL(Dataset.from_slides([self._path]), **settings) as loader:
            while batches is None or len(found) < batches:
                try:
                    batch = loader.next_batch(60)
                except StopIteration:
                    break
                names = ("x", "y", "bigchunk", "mpp")
                found.append({name: batch[name] for name in names})
                found[-1]["batch"] = np.full(len(batch["x"]), batch.number)
        columns = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        side = settings["smallchunk_size"] * columns["mpp"] / MPP
        return Rows(side=side, **columns)

    def show(self, axes: Any, rows: Rows, colours: Sequence[Any], title: str) -> None:
        """Squares over the thumbnail, each in its colour."""
        axes.imshow(self.picture, extent=(0, WIDTH, HEIGHT, 0))
        squares = [
            Rectangle((x, y), side, side)
            for x, y, side in zip(rows.x, rows.y, rows.side, strict=True)
        ]
        faces = [mpl.colors.to_rgba(colour, 0.3) for colour in colours]
        edges = [mpl.colors.to_rgba(colour, 1.0) for colour in colours]
        collection = PatchCollection(squares, facecolors=faces, edgecolors=edges, linewidths=0.7)
        axes.add_collection(collection)
        frame(axes, title)

    def show_centres(self, axes: Any, rows: Rows, title: str) -> None:
        """A point for each row."""
        axes.imshow(self.picture, extent=(0, WIDTH, HEIGHT, 0))
        middle = rows.side / 2
        axes.plot(rows.x + middle, rows.y + middle, ",", color=COLOURS[0], alpha=0.7)
        frame(axes, title)


def frame(axes: Any, title: str) -> None:
    """The borders of the slide."""
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), title=title)
    axes.set_xticks([])
    axes.set_yticks([])


def of_bigchunks(rows: Rows) -> list[Any]:
    """A colour for each BigChunk."""
    return [COLOURS[ordinal % len(COLOURS)] for ordinal in rows.bigchunk.tolist()]


def panels(count: int, width: float = 10.5) -> tuple[Any, Any]:
    """Some panels side by side, each of the shape of the slide."""
    height = width / count * HEIGHT / WIDTH + 0.35
    return plt.subplots(1, count, figsize=(width, height), layout="constrained")


def save(figure: Any, name: str) -> None:
    """Write a picture with few colours and without a date."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(128).save(FOLDER / f"{name}.png", optimize=True)


def mixing(slide: Slide) -> None:
    """One batch with few and with many open BigChunks."""
    figure, axes = panels(3)
    for place, open_ in zip(axes, (8, 32, 64), strict=True):
        # The fourth batch: the first BigChunks have no shorter lives than others any more.
        rows = slide.rows(4, num_bigchunks=open_)
        last = last_batch(rows)
        slide.show(place, last, of_bigchunks(last), f"num_bigchunks={open_}: one batch of 64")
    save(figure, "sampling-mixing")


def last_batch(rows: Rows) -> Rows:
    """The rows of the last batch alone."""
    kept = rows.batch == rows.batch.max()
    return Rows(**{name: values[kept] for name, values in asdict(rows).items()})


def plain(slide: Slide) -> None:
    """One batch, and many."""
    figure, axes = panels(2, 8.5)
    one, many = slide.rows(1), slide.rows(300)
    slide.show(axes[0], one, of_bigchunks(one), "one batch of 64")
    slide.show_centres(axes[1], many, "300 batches: the middle of each row")
    save(figure, "sampling-plain")


def resolutions(slide: Slide) -> None:
    """A mixture and a range."""
    figure, axes = panels(2, 8.5)
    mixture = slide.rows(1, mpp={0.5: 1, 1.0: 1, 2.0: 1})
    colour = {0.5: COLOURS[0], 1.0: COLOURS[3], 2.0: COLOURS[2]}
    slide.show(
        axes[0], mixture, [colour[round(t, 1)] for t in mixture.mpp.tolist()],
        "mpp={0.5: 1, 1.0: 1, 2.0: 1}",
    )  # fmt: skip
    axes[0].legend(
        handles=[Patch(color=c, label=f"{t} µm/px") for t, c in colour.items()],
        loc="lower right", fontsize=8,
    )  # fmt: skip
    drawn = slide.rows(1, mpp=Continuous(0.5, 2.0, "log"))
    shade = plt.get_cmap("viridis")
    colours = [shade(np.log(t / 0.5) / np.log(4)) for t in drawn.mpp.tolist()]
    slide.show(axes[1], drawn, colours, 'mpp=Continuous(0.5, 2.0, "log")')
    save(figure, "sampling-resolutions")


def threshold(slide: Slide) -> None:
    """Little and much tissue in a patch."""
    figure, axes = panels(3)
    for place, least in zip(axes, (0.05, 0.5, 0.95), strict=True):
        rows = slide.rows(4, tissue_threshold=least)
        slide.show(place, rows, [COLOURS[0]] * len(rows.x), f"tissue_threshold={least}")
    save(figure, "sampling-threshold")


def windows(slide: Slide) -> None:
    """What one BigChunk gives: by its size, and by the reuse."""
    figure, axes = panels(3)
    shown = (
        ("bigchunk_size=512, reuse=1", {"bigchunk_size": 512}),
        ("bigchunk_size=1024, reuse=1", {}),
        ("bigchunk_size=1024, reuse=4", {"reuse": 4.0}),
    )
    for place, (title, changes) in zip(axes, shown, strict=True):
        # One after the other: all of BigChunk 0, then all of 1, and so on.
        rows = slide.rows(60, num_bigchunks=1, batch_size=16, **changes)
        first = Rows(**{name: values[rows.bigchunk < 4] for name, values in asdict(rows).items()})
        slide.show(place, first, of_bigchunks(first), title)
    save(figure, "sampling-windows")


def filters(slide: Slide) -> None:
    """Without a filter, and with one that wants the purple kind of tissue."""
    figure, axes = panels(2, 8.5)
    every = slide.rows(4)
    slide.show(axes[0], every, [COLOURS[0]] * len(every.x), "no filter")
    purple = slide.rows(4, pixel_filter=PURPLE)
    slide.show(axes[1], purple, [COLOURS[0]] * len(purple.x), "pixel_filter: most of it is purple")
    save(figure, "sampling-filters")


def without_replacement(slide: Slide) -> None:
    """Parts of one pass."""
    figure, axes = panels(3)
    whole = slide.rows(None, replacement=False, smallchunk_size=192, bigchunk_size=960)
    last = int(whole.batch.max()) + 1
    for place, part in zip(axes, (1, last // 2, last), strict=True):
        rows = Rows(**{name: values[whole.batch < part] for name, values in asdict(whole).items()})
        slide.show(place, rows, of_bigchunks(rows), f"after {part} of {last} batches")
    save(figure, "sampling-without-replacement")


def grid(slide: Slide) -> None:
    """A pass, coloured by the BigChunks and by the order."""
    figure, axes = panels(2, 8.5)
    rows = slide.rows(None, grid=True, smallchunk_size=192, bigchunk_size=960)
    slide.show(axes[0], rows, of_bigchunks(rows), "grid=True: its BigChunks")
    shade = plt.get_cmap("viridis")
    order = [shade(number / max(1, rows.batch.max())) for number in rows.batch.tolist()]
    slide.show(axes[1], rows, order, "the same pass: its batches, first to last")
    save(figure, "sampling-grid")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        slide = Slide(Path(folder))
        for draw in (
            plain,
            mixing,
            windows,
            resolutions,
            threshold,
            filters,
            grid,
            without_replacement,
        ):
            draw(slide)
