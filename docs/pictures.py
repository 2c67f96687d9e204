"""Draws the pictures of ``the-plan.md`` and the README: ``python docs/pictures.py``.

Needs matplotlib. The pictures lie beside the pages, so that building the site does not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image

from chunkdl.commands.main import main
from chunkdl.sampling.anchors import Anchors
from chunkdl.sampling.positions import PositionSet, positions_of
from chunkdl.sampling.rotation import Rotation
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.sampling.windows import Lattice
from chunkdl.slides.resolution import TargetGrid
from chunkdl.slides.slide import Level
from chunkdl.slides.synthetic.tissue_look import TissueMap
from chunkdl.slides.synthetic.writing import write_tissue_slide
from chunkdl.slides.tissue.mask import TissueMask

mpl.use("Agg")
plt.rcParams.update({"font.size": 10, "figure.dpi": 120, "savefig.bbox": "tight"})

FOLDER = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1540, 1310
SMALLCHUNK, WINDOW, TILE = 64, 512, 256
SEED = 11
WINDOWS, DRAWS = 40_000, 6
BIN = 44
TISSUE, BLUE, ORANGE = "#e8c4d8", "#1f5fd0", "#e06a00"

GRID = TargetGrid(level=0, factor=1.0, width=WIDTH, height=HEIGHT, downsample=1.0, mpp=None)
LATTICE = Lattice.of(Level(WIDTH, HEIGHT, 1.0, TILE, TILE), GRID, WINDOW, SMALLCHUNK)
CELLS = TissueMap(WIDTH, HEIGHT, seed=4, tumour_fraction=0).classes(0, 0, WIDTH, HEIGHT) > 0
POSITIONS = positions_of(GRID, TissueMask(CELLS, WIDTH, HEIGHT), SMALLCHUNK, 0.5)
ANCHORS = Anchors(POSITIONS, lambda: None)

Floats = npt.NDArray[np.float64]


def save(figure: Any, name: str) -> None:
    """Write a picture without a date, so that the same code gives the same file."""
    figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def frame(axes: Any, title: str, margin: int = 0) -> None:
    """The slide's border, and axes that count downwards."""
    axes.add_patch(Rectangle((0, 0), WIDTH, HEIGHT, fill=False, lw=1.2, color="black"))
    axes.set(xlim=(-margin, WIDTH + margin), ylim=(HEIGHT + margin, -margin), title=title)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def show_tissue(axes: Any) -> None:
    """The tissue as a soft area."""
    colours = mpl.colors.ListedColormap(["white", TISSUE])
    axes.imshow(CELLS, cmap=colours, extent=(0, WIDTH, HEIGHT, 0), interpolation="nearest")


def lattice() -> None:
    """The lattice, and all windows around one anchor near the slide's corner."""
    figure, axes = plt.subplots(figsize=(7, 6))
    show_tissue(axes)
    stride = LATTICE.across.stride_px
    for x in range(-stride, WIDTH + WINDOW, stride):
        axes.axvline(x, color="0.75", lw=0.7)
    for y in range(-stride, HEIGHT + WINDOW, stride):
        axes.axhline(y, color="0.75", lw=0.7)
    near_edge = [ANCHORS.at(index) for index in range(0, ANCHORS.count, 997)]
    anchor = max(near_edge, key=lambda place: place[0] + place[1])
    columns = int(LATTICE.across.first(anchor[0])) + np.arange(int(LATTICE.across.count(anchor[0])))
    rows = int(LATTICE.down.first(anchor[1])) + np.arange(int(LATTICE.down.count(anchor[1])))
    for number, (row, column) in enumerate((r, c) for r in rows for c in columns):
        inset = 6 * number
        corner = (column * stride + inset, row * LATTICE.down.stride_px + inset)
        side = WINDOW - 2 * inset
        axes.add_patch(Rectangle(corner, side, side, fill=False, lw=2, color=f"C{number}"))
    axes.add_patch(Rectangle(anchor, SMALLCHUNK, SMALLCHUNK, color="black"))
    axes.annotate(
        "the anchor's footprint", anchor, (anchor[0] - 900, anchor[1] + 60), fontsize=11,
        arrowprops={"arrowstyle": "->"}, bbox={"color": "white"},
    )  # fmt: skip
    frame(axes, f"{len(rows) * len(columns)} windows hold this footprint; one is drawn", 300)
    save(figure, "lattice")


def counts() -> None:
    """A(p) everywhere."""
    x, y = np.arange(POSITIONS.across.extent), np.arange(POSITIONS.down.extent)
    count = LATTICE.down.count(y)[:, None] * LATTICE.across.count(x)[None, :]
    values = np.unique(count)
    figure, axes = plt.subplots(figsize=(7, 5.2))
    colours = plt.get_cmap("viridis", len(values))
    shown = np.searchsorted(values, count)
    extent = (0, POSITIONS.across.extent, POSITIONS.down.extent, 0)
    image = axes.imshow(shown, cmap=colours, extent=extent, vmin=-0.5, vmax=len(values) - 0.5)
    bar = figure.colorbar(image, ax=axes, ticks=range(len(values)), shrink=0.8)
    bar.ax.set_yticklabels([str(value) for value in values])
    frame(axes, "A(p): how many windows hold the footprint at p")
    save(figure, "counts")


def chunkdl_draws() -> tuple[Floats, Floats]:
    """Positions as chunkdl draws them."""
    found = []
    for ordinal in range(WINDOWS):
        window = LATTICE.draw_window(ANCHORS, generator(SEED, Purpose.WINDOW, ordinal))
        rng = generator(SEED, Purpose.POSITIONS, ordinal)
        draws = LATTICE.draw_positions(POSITIONS, window, DRAWS, rng)
        found.append((draws.x, draws.y))
    x, y = np.concatenate(found, axis=1)
    return x.astype(np.float64), y.astype(np.float64)


def naive_draws() -> tuple[Floats, Floats]:
    """The usual recipe: a uniform window inside the slide, uniform crops, those on tissue kept."""
    rng = np.random.default_rng(SEED)
    allowed = accepted(POSITIONS)
    found: list[tuple[Floats, Floats]] = []
    while len(found) < WINDOWS:
        left = int(rng.integers(WIDTH - WINDOW + 1))
        top = int(rng.integers(HEIGHT - WINDOW + 1))
        x = left + rng.integers(WINDOW - SMALLCHUNK + 1, size=40 * DRAWS)
        y = top + rng.integers(WINDOW - SMALLCHUNK + 1, size=40 * DRAWS)
        good = np.flatnonzero(allowed[y, x])[:DRAWS]
        if len(good) == DRAWS:
            found.append((x[good].astype(np.float64), y[good].astype(np.float64)))
    x, y = np.concatenate(found, axis=1)
    return x, y


def accepted(positions: PositionSet) -> npt.NDArray[np.bool_]:
    """Which corners are positions, shape (height, width)."""
    down, across = positions.down, positions.across
    cells = positions.accepted(range(down.cells), range(across.cells))
    whole = cells.repeat(down.cell_px, axis=0).repeat(across.cell_px, axis=1)
    return whole[: down.extent, : across.extent]


def density() -> None:
    """How often places are drawn, relative to how often they should be."""
    edges = (
        np.arange(0, POSITIONS.down.extent + BIN, BIN),
        np.arange(0, POSITIONS.across.extent + BIN, BIN),
    )
    corners = np.argwhere(accepted(POSITIONS))
    share = np.histogram2d(corners[:, 0], corners[:, 1], edges)[0] / len(corners)
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.3), layout="constrained")
    show_tissue(axes[0])
    frame(axes[0], "tissue of the slide\n")
    recipes = (("the usual recipe", naive_draws()), ("chunkdl", chunkdl_draws()))
    for place, (name, (x, y)) in zip(axes[1:], recipes, strict=True):
        drawn = np.histogram2d(y, x, edges)[0] / len(x)
        # Places with few positions in their bin would show nothing but chance.
        enough = share > 0.25 * share.max()
        ratio = np.where(enough, drawn / np.where(enough, share, 1), np.nan)
        image = place.imshow(
            np.log2(np.maximum(ratio, 2**-3)), cmap="RdBu_r", vmin=-2, vmax=2,
            extent=(0, edges[1][-1], edges[0][-1], 0), interpolation="nearest",
        )  # fmt: skip
        low, high = np.nanpercentile(ratio, (5, 95))
        frame(place, f"{name}\n90 % of places get {low:.2f} to {high:.2f} of their share")
    bar = figure.colorbar(image, ax=axes[1:], ticks=(-2, -1, 0, 1, 2), shrink=0.85)
    bar.ax.set_yticklabels(["1/4", "1/2", "1", "2", "4"])
    save(figure, "density")


def rotation() -> None:
    """Which BigChunk each open place holds in each round."""
    turns = Rotation(seed=SEED, places=8, calls=12)
    rounds = 40
    ordinals, calls = turns.rows(0, rounds * turns.places)
    round_ = np.arange(len(ordinals)) // turns.places
    held = np.zeros((turns.places, rounds), np.int64)
    held[ordinals % turns.places, round_] = ordinals
    figure, axes = plt.subplots(figsize=(11, 3.6))
    axes.imshow(held % 20, cmap="tab20", aspect="auto", alpha=0.75)
    for ordinal in np.unique(ordinals):
        mine = ordinals == ordinal
        middle = round_[mine].mean()
        axes.text(middle, ordinal % turns.places, str(ordinal), ha="center", va="center")
        if calls[mine].min() == 0 and round_[mine].min() > 0:
            edge = round_[mine].min() - 0.5
            row = ordinal % turns.places
            axes.plot((edge, edge), (row - 0.5, row + 0.5), color="black", lw=1.5)
    axes.set(
        xlabel="round t: every place serves one draw",
        ylabel="open place j",
        title=f"P = {turns.places} open BigChunks of n = {turns.calls} SmallChunks each; "
        "the numbers are the ordinals k",
    )
    save(figure, "rotation")


def first_look() -> None:
    """A batch, and what was drawn on a slide, as the commands of chunkdl draw them."""
    with tempfile.TemporaryDirectory() as folder:
        slides, batch = Path(folder, "slides"), Path(folder, "batch.png")
        slides.mkdir()
        for number in range(4):
            write_tissue_slide(slides / f"slide-{number}.tif", 6000, 4500, seed=4 + number)
        assert main(["demo", "--slides", str(slides), "--batches", "5", "--out", str(batch)]) == 0
        given = ["--bigchunk-size", "1024", "--windows", "4", "--positions", "12"]
        assert main(["inspect", str(slides / "slide-0.tif"), *given, "--out", folder]) == 0
        sheet = Image.open(batch).crop((0, 0, 1366, 227)).reduce(2)
        sheet.quantize(64).save(FOLDER / "batch.png", optimize=True)
        drawn = Image.open(Path(folder, "slide-0.tif.png")).crop((16, 16, 766, 578))
        drawn.quantize(64).save(FOLDER / "drawn.png", optimize=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for draw in (lattice, counts, density, rotation, first_look):
        draw()
