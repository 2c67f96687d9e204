"""What a network learns from batches of several mixtures: ``python -m benchmarks.learning``.

A network of four convolutions says from which of seven slides a patch is. It is trained on one half
of the tissue of each slide and tested on the other half. The label is certain, and what shows it
(stain, texture, architecture) is as weak in a single patch as labels of slides usually are.

The same network is trained with patches that are drawn independently of each other, each from a
BigChunk of its own, and with streams that differ from the default in one setting. Every run takes
the same number of steps, so the accuracies do not depend on the speed of the machine. Runs with the
same seed begin with the same weights, and differences are taken between them.

Each run that is finished is a line of the file of ``--results``. What is in it is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import nn

from chunkdl import Dataset, LightDL, Patient, Record
from chunkdl.consumers.batches.diversity import Diversity
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.mask import compute_mask

SLIDES = (
    "lung-scc-biopsy-gt450-40x.svs",
    "lung-scc-biopsy-gt450-20x.svs",
    "skin-molluscum-20x-generic.tiff",
    "pancreas-philips-20x.tiff",
    "gallbladder-leica-20x.scn",
    "stomach-he-20x.ndpi",
    "endometrium-dicom",
)
"""H&E, all with tissue in both halves."""
PATCH, BATCH = 96, 64
CHANNELS = (16, 32, 32, 64)
LEARNING_RATE = 2e-3
TEST_BATCHES, TEST_SEED = 64, 2**32
PATIENCE_S = 600.0

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        name: as the table shows it.
        factor: what it varies; "default" and "independent" vary nothing.
        arguments: of `LightDL`.
    """

    name: str
    factor: str
    arguments: Mapping[str, Any]


DEFAULT: Mapping[str, Any] = {"num_bigchunks": 32, "reuse": 1.0, "bigchunk_size": 1024}
"""The default of chunkdl, with a window that has about as many patches of 96 px as a default one
has of 224 px."""
INDEPENDENT: Mapping[str, Any] = {
    "num_bigchunks": BATCH,
    "smallchunks_per_bigchunk": 1,
    "bigchunk_size": PATCH,
}

SETTINGS = (
    Setting("independent patches", "independent", INDEPENDENT),
    Setting("default: 32 open, reuse 1, windows of 1024 px", "default", DEFAULT),
    *(
        Setting(f"{places} open", "open", {**DEFAULT, "num_bigchunks": places})
        for places in (8, 64, 128, 256)
    ),
    *(Setting(f"reuse {reuse}", "reuse", {**DEFAULT, "reuse": float(reuse)}) for reuse in (4, 16)),
    *(
        Setting(f"windows of {side} px", "window", {**DEFAULT, "bigchunk_size": side})
        for side in (512, 2048)
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one training gave.

    Attributes:
        setting: its name.
        seed: of the weights and of the stream.
        steps: of the training.
        accuracy: share of the test patches whose slide was named, 0 to 1.
        bigchunks, patients: different ones in a batch, mean.
        overlap: share of the pixels of a batch that another row shows too, mean, 0 to 1.
        calls: SmallChunks of each BigChunk.
        replaced: how often the BigChunk of an open place was used up, mean over the places.
        decoded: pixels decoded per pixel delivered.
    """

    setting: str
    seed: int
    steps: int
    accuracy: float
    bigchunks: float
    patients: float
    overlap: float
    calls: int
    replaced: float
    decoded: float


def halves(folder: Path) -> tuple[Dataset, Dataset]:
    """The slides with one half of their tissue each, for training and for test.

    The tissue of a slide is cut across the longer side of the mask, into halves of equal area. What
    is nearer to the cut than a patch belongs to neither, so no pixel is in both.
    """
    datasets = []
    cut = [_cut(folder / name) for name in SLIDES]
    for part, name in enumerate(("training", "test")):
        patients = [
            Patient(
                number,
                {
                    "slide": Record(folder, slide, {"slide": True, "tissue_mask": masks[part]}),
                    "label": number,
                },
                name=slide,
            )
            for number, (slide, masks) in enumerate(zip(SLIDES, cut, strict=True))
        ]
        datasets.append(Dataset(name, patients))
    return datasets[0], datasets[1]


def _cut(path: Path) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    slide = open_slide(path)
    mask = compute_mask(slide, Otsu())
    slide.close()
    cells = mask.cells
    longer = int(np.argmax(cells.shape))
    cell_px = (mask.height0, mask.width0)[longer] / cells.shape[longer]
    before = cells.sum(axis=1 - longer).cumsum()
    middle = int(np.searchsorted(before, before[-1] / 2))
    gap = int(np.ceil(PATCH / cell_px))
    line = np.arange(cells.shape[longer])
    line = line[:, None] if longer == 0 else line[None, :]
    return cells & (line < middle - gap), cells & (line > middle + gap)


def network(seed: int) -> nn.Module:
    """Four convolutions, each with a step of two, on patches at half their resolution."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    inputs = 3
    for outputs in CHANNELS:
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, len(SLIDES))]
    return nn.Sequential(*layers)


def stream(dataset: Dataset, seed: int, arguments: Mapping[str, Any]) -> LightDL:
    """Batches of patches of level 0, each slide equally often."""
    return LightDL(
        dataset,
        batch_size=BATCH,
        smallchunk_size=PATCH,
        seed=seed,
        num_loaders=1,
        num_collectors=1,
        pin_memory=False,
        **arguments,
    )


def as_input(images: torch.Tensor) -> torch.Tensor:
    """Rows of a batch as the network takes them."""
    return images.float().div_(127.5).sub_(1.0)


def test_patches(test: Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Independent patches and their slides, the same for all runs."""
    found = []
    with stream(test, TEST_SEED, INDEPENDENT) as loader:
        for _ in range(TEST_BATCHES):
            batch = loader.next_batch(PATIENCE_S)
            found.append((batch["image"].clone(), batch["label"]))
    return found


def accuracy(model: nn.Module, patches: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The share of patches whose slide the model names."""
    model.eval()
    with torch.no_grad():
        right = [int((model(as_input(x)).argmax(1) == y).sum()) for x, y in patches]
    return sum(right) / (len(patches) * BATCH)


def train(
    setting: Setting,
    seed: int,
    steps: int,
    training: Dataset,
    patches: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> Run:
    """Train one network and test it."""
    model = network(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    mixed: list[Diversity] = []
    with stream(training, seed, setting.arguments) as loader:
        for _ in range(steps):
            batch = loader.next_batch(PATIENCE_S)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(as_input(batch["image"])), batch["label"])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            mixed.append(batch.diversity)
        seen = loader.stats(PATIENCE_S)
    places, calls = setting.arguments["num_bigchunks"], seen.smallchunks_per_bigchunk
    return Run(
        setting=setting.name,
        seed=seed,
        steps=steps,
        accuracy=accuracy(model, patches),
        bigchunks=fmean(one.bigchunks for one in mixed),
        patients=fmean(one.patients for one in mixed),
        overlap=fmean(one.overlap for one in mixed),
        calls=calls,
        replaced=steps * BATCH / places / calls,
        decoded=seen.decoded_share / setting.arguments.get("reuse", 1.0),
    )


def finished(results: Path, steps: int) -> list[Run]:
    """The runs of so many steps that are in the file."""
    if not results.exists():
        return []
    runs = [Run(**json.loads(line)) for line in results.read_text().splitlines()]
    return [run for run in runs if run.steps == steps]


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its t interval, in hundredths."""
    if len(values) < 2:
        return f"{100 * values[0]:.1f}"
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return f"{100 * fmean(values):+.1f} ± {100 * quantile * stdev(values) / len(values) ** 0.5:.1f}"


def table(runs: Sequence[Run], settings: Sequence[Setting]) -> str:
    """The results as one Markdown table; differences are between runs with the same seed."""
    by_seed: dict[str, dict[int, Run]] = {setting.name: {} for setting in settings}
    for run in runs:
        if run.setting in by_seed:
            by_seed[run.setting][run.seed] = run
    default = by_seed.get(_default().name, {})
    lines = [
        "| |runs|accuracy, %|difference to the default|BigChunks in a batch"
        "|patients in a batch|pixels shown twice in a batch, %"
        "|SmallChunks of a BigChunk|times that a place was used up|pixels decoded per pixel|",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, of_seed in by_seed.items():
        mine = list(of_seed.values())
        if not mine:
            continue
        pairs = [
            run.accuracy - default[seed].accuracy
            for seed, run in of_seed.items()
            if seed in default
        ]
        difference = "" if name == _default().name or not pairs else interval(pairs)
        lines.append(
            f"|{name}|{len(mine)}|{interval([run.accuracy for run in mine]).lstrip('+')}"
            f"|{difference}|{fmean(run.bigchunks for run in mine):.1f}"
            f"|{fmean(run.patients for run in mine):.1f}"
            f"|{100 * fmean(run.overlap for run in mine):.1f}"
            f"|{fmean(run.calls for run in mine):.0f}"
            f"|{fmean(run.replaced for run in mine):.1f}|{fmean(run.decoded for run in mine):.1f}|"
        )
    return "\n".join(lines)


def _default() -> Setting:
    return next(setting for setting in SETTINGS if setting.factor == "default")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not in the file yet, and print the table of all that is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    factors = sorted({setting.factor for setting in SETTINGS})
    parser.add_argument("--slides", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=8, metavar="N")
    parser.add_argument("--steps", type=int, default=500, metavar="N")
    parser.add_argument(
        "--only", choices=factors, help="the settings that vary this, and the default"
    )
    parser.add_argument("--results", type=Path, default=Path("learning.jsonl"), metavar="FILE")
    options = parser.parse_args(arguments)
    settings = [
        setting
        for setting in SETTINGS
        if options.only in (None, setting.factor) or setting.factor == "default"
    ]
    torch.set_num_threads(1)
    done = {(run.setting, run.seed) for run in finished(options.results, options.steps)}
    # Every setting with one seed before the next seed: what is broken off can be compared.
    missing = [
        (setting, seed)
        for seed in range(options.seeds)
        for setting in settings
        if (setting.name, seed) not in done
    ]
    if missing:
        training, test = halves(options.slides)
        patches = test_patches(test)
        for setting, seed in missing:
            run = train(setting, seed, options.steps, training, patches)
            with options.results.open("a") as file:
                file.write(json.dumps(asdict(run)) + "\n")
    print(table(finished(options.results, options.steps), settings))


if __name__ == "__main__":
    main()
