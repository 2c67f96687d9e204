"""Draws ``pictures/sampling-midnight.png`` of ``sampling.md`` from two files of delivered rows.

``python -m benchmarks.midnight_recipe LOADER --save FILE.npz ...`` writes such a file for each
loader; ``python docs/midnight_pictures.py CHUNKDL.npz WSISTREAM.npz`` draws. Needs matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

mpl.use("Agg")
plt.rcParams.update({"font.size": 9, "figure.dpi": 110})

COLOURS = {"chunkdl": "#0050ff", "wsistream": "#ff7800"}
OUT = Path(__file__).parent / "pictures" / "sampling-midnight.png"

Rows = Mapping[str, Any]


def bars(axes: Any, counted: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A bar for each loader beside each other; shares of the rows."""
    names = sorted({name for counts in counted.values() for name in counts})
    for index, (loader, counts) in enumerate(counted.items()):
        places = np.arange(len(names)) + (index - 0.5) * 0.4
        axes.bar(places, [counts.get(n, 0) for n in names], 0.4, color=COLOURS[loader])
    short = [" ".join(name.split("-")[:: max(1, name.count("-"))]) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=30, ha="right")
    axes.set_title(title)


def shares(values: Any) -> dict[str, float]:
    """The share of each value."""
    names, counts = np.unique(values, return_counts=True)
    return {str(n): float(c / len(values)) for n, c in zip(names, counts, strict=True)}


def draw(rows: Mapping[str, Rows]) -> None:
    """Resolutions, slides, and the tissue in a patch."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained")
    mpp = {name: shares([f"{one:.2f}" for one in r["mpp"]]) for name, r in rows.items()}
    bars(left, mpp, "share of rows, by microns/pixel")
    bars(middle, {name: shares(r["slide"]) for name, r in rows.items()}, "share of rows, by slide")
    for name, r in rows.items():
        edges = np.linspace(0, 1, 21)
        weights = np.full(len(r["tissue_fraction"]), 1 / len(r["tissue_fraction"]))
        right.hist(
            r["tissue_fraction"], edges, weights=weights, histtype="step", color=COLOURS[name]
        )
    right.set_title("share of tissue in a patch")
    handles = [plt.Line2D([], [], color=colour, lw=4) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(OUT)


def main() -> None:
    """Draw the picture, and print the shares that it shows."""
    rows: dict[str, Rows] = {
        name: np.load(path) for name, path in zip(COLOURS, sys.argv[1:], strict=True)
    }
    draw(rows)
    for name, r in rows.items():
        print(name, len(r["mpp"]), "rows", shares(r["slide"]))
        print(shares([f"{one:.2f}" for one in r["mpp"]]))


if __name__ == "__main__":
    main()
