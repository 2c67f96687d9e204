"""The tour of ``chunkdl demo``: processes, batches as they flow, an exact resume, a contact sheet.

It uses the public library alone, so it can be read as an example. `LightDL` needs torch.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chunkdl import __version__
from chunkdl.consumers.batches.batch import Batch
from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.slides.synthetic.writing import write_tissue_slide

SLIDES_FOLDER = Path("demo-slides")
SLIDES = 4
SLIDE_WIDTH, SLIDE_HEIGHT = 6144, 4096
SEED = 7
LINE_EVERY = 16
"""Batches per line of the table."""
COMPARED = 4
"""Batches whose bytes are compared after the resume."""
SHEET_COLUMNS = 16
PATIENCE_S = 120.0
"""Longest wait for one batch: a slide on a slow disk may need its tissue mask first."""

STREAM: dict[str, Any] = {
    "batch_size": 64,
    "smallchunk_size": 224,
    "bigchunk_size": 1024,
    "num_bigchunks": 32,
    "seed": SEED,
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Tour:
    """What to show.

    Attributes:
        slides: files or folders; None: synthetic slides, made where they are not.
        batches: end after so many; None: as many as come.
        seconds: end after so long.
        sheet: the picture of one batch that is written.
    """

    slides: Sequence[Path] | None
    batches: int | None
    seconds: float
    sheet: Path


def give_tour(tour: Tour, say: Say) -> bool:
    """Stream, resume and draw, saying what happens.

    Args:
        tour: what to show.
        say: gets every line.

    Returns:
        Whether the resumed stream gave the same bytes, as it must.

    Raises:
        ChunkdlError: the slides cannot be used, or the stream failed.
    """
    say(f"chunkdl {__version__}")
    dataset = Dataset.from_slides(synthetic_slides(say) if tour.slides is None else tour.slides)
    say(f"slides     {', '.join(patient.name for patient in dataset)}")
    with LightDL(dataset, **STREAM) as loader:
        say(f"processes  {_processes()}")
        say("")
        _stream(loader, tour, say)
        state = loader.state_dict()
        batches = [loader.next_batch(PATIENCE_S) for _ in range(COMPARED)]
    first = digest(batches)
    say("")
    say(f"resume     saved after batch {state['next_batch']}; the next {COMPARED} batches")
    say(f"           have the SHA-256 {first[:32]}")
    with LightDL(dataset, **STREAM, num_loaders=1) as again:
        again.load_state_dict(state)
        second = digest(again.next_batch(PATIENCE_S) for _ in range(COMPARED))
    say(f"           and {second[:32]} from a new loader with one reading process")
    say(f"           {'the same, bit for bit' if first == second else 'THEY DIFFER'}")
    tour.sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(batches[-1]).save(tour.sheet)
    say(f"picture    {tour.sheet}: batch {batches[-1].number}")
    return first == second


def synthetic_slides(say: Say) -> list[Path]:
    """The slides of the demo in `SLIDES_FOLDER`, made where they are not there yet."""
    SLIDES_FOLDER.mkdir(exist_ok=True)
    paths = [SLIDES_FOLDER / f"synthetic-{number}.tif" for number in range(1, SLIDES + 1)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        say(f"making {len(missing)} synthetic slides in {SLIDES_FOLDER}/, once")
    for path in missing:
        # An interrupted demo must not leave half a slide under the name of a whole one.
        unfinished = path.with_suffix(".part")
        number = paths.index(path)
        write_tissue_slide(
            unfinished, SLIDE_WIDTH, SLIDE_HEIGHT, seed=number, tumour_fraction=0.2 + 0.2 * number
        )
        unfinished.replace(path)
    return paths


def _stream(loader: LightDL, tour: Tour, say: Say) -> None:
    """Take batches and say, every few of them, what came."""
    say("  batch  patches/s  decoded Mpx  delivered Mpx  reuse  waited  per batch")
    started = time.monotonic()
    since, rows, number = started, 0, 0
    while True:
        batch = loader.next_batch(PATIENCE_S)
        number, rows = number + 1, rows + len(batch.patients)
        now = time.monotonic()
        last = number == tour.batches or now - started >= tour.seconds
        if last or number % LINE_EVERY == 0:
            say(_line(number, rows / (now - since), loader, batch))
            since, rows = now, 0
        if last:
            say(
                "(this loop computes nothing, so it always waits; in a training this share matters)"
            )
            return


def _line(number: int, rate: float, loader: LightDL, batch: Batch) -> str:
    seen, mixed = loader.stats(60), batch.diversity
    return (
        f"{number:7}  {rate:9,.0f}  {seen.decoded_mpx:11,.0f}  {seen.delivered_mpx:13,.0f}  "
        f"{seen.reuse:5.2f}  {seen.wait_share:6.0%}  "
        f"{mixed.bigchunks} BigChunks, {mixed.patients} patients, overlap {mixed.overlap:.1%}"
    )


def digest(batches: Iterator[Batch] | Sequence[Batch]) -> str:
    """SHA-256 over every byte of some batches."""
    seen = hashlib.sha256()
    for batch in batches:
        for name in ("image", "x", "y", "level", "mpp", "tissue_fraction", "bigchunk", "call"):
            seen.update(batch[name].contiguous().numpy().tobytes())
        seen.update(os.fsencode("\n".join(batch["slide"] + batch["patient"])))
    return seen.hexdigest()


def contact_sheet(batch: Batch) -> Image.Image:
    """The images of a batch side by side, in the order of its rows, at half their size."""
    rows = batch["image"].permute(0, 2, 3, 1).numpy()
    side = rows.shape[1] // 2
    lines = -(-len(rows) // SHEET_COLUMNS)
    step = side + 2
    sheet = Image.new("RGB", (SHEET_COLUMNS * step - 2, lines * step - 2), "white")
    for number, pixels in enumerate(rows):
        line, column = divmod(number, SHEET_COLUMNS)
        patch = Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side))
        sheet.paste(patch, (column * step, line * step))
    return sheet


def _processes() -> str:
    """The processes of our service and their ids, as the system lists them."""
    names = dict(_workers_of(os.getpid()))
    for pid in tuple(names):
        names.update(_workers_of(pid))
    kinds = ("coordinator", "loader", "collector")
    of_kind = {kind: [str(pid) for pid, name in names.items() if name == kind] for kind in kinds}
    return ", ".join(f"{kind} {' '.join(pids)}" for kind, pids in of_kind.items())


def _workers_of(parent: int) -> Iterator[tuple[int, str]]:
    """Pid and kind of the chunkdl programs that `parent` has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # Field 4; the name before it is in brackets and may hold anything (man 5 proc).
            parent_of = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            words = folder.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        program = next((word for word in words if word.startswith("chunkdl_workers.")), "")
        if parent_of == parent and program:
            yield int(folder.name), program.partition(".")[2]
