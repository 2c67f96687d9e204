"""Whether a pixel filter passes anything of a slide: a look at places that never change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chunkdl.engine.work.judge import Judge
from chunkdl.errors import SlideError
from chunkdl.patches.filters.pixel_filter import LookAtPixels, PixelFilter
from chunkdl.sampling.filtered_draws import probes, probes_at_each
from chunkdl.slides.refused_pictures import keep_picture
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.slide import Pixels

if TYPE_CHECKING:
    from chunkdl.engine.work.open_slides import OpenSlide
    from chunkdl.engine.work.planned_slide import PlannedSlide

FOLDER = "refused"
"""Of the pictures, in the folder of the tissue mask cache."""


def refusal_of(planned: PlannedSlide, opened: OpenSlide, pixel_filter: PixelFilter) -> str:
    """Why the slide gives nothing at its resolution under the filter; empty: it gives something.

    It is the same for every BigChunk and in every process. A place that is damaged is no place.

    Args:
        planned: the slide, which has a position.
        opened: the slide; a picture is written to a folder in that of its mask cache.
        pixel_filter: of the stream.

    Raises:
        SlideError: nothing that was looked at can be read, or the file is away.
        HookError: the user's filter raised.
    """
    config, judge = opened.config, Judge(planned, pixel_filter, opened.on_progress)
    side_px = config.smallchunk_px
    pixels = np.empty((side_px, side_px, 3), np.uint8)
    shown = pixels.view()
    shown.flags.writeable = False
    look = LookAtPixels(shown)
    refused: Pixels | None = None
    damaged: SlideError | None = None
    count = probes_at_each(len(config.resolution.examples))
    value = planned.resolution.value
    for x, y in probes(planned.places, config.seed, opened.index, value, count):
        try:
            read_target_into(planned.slide, planned.grid, pixels, x, y)
        except SlideError as error:
            if error.may_pass:
                raise
            damaged = error
            continue
        if judge.passes(look, x, y):
            return ""
        if refused is None:
            refused = pixels.copy()
    if refused is None:
        raise damaged or SlideError("nothing was looked at", slide=planned.entry.path)
    about, folder = f"{pixel_filter.key}\n{planned.resolution!r}", opened.cache.folder / FOLDER
    return (
        f"the pixel filter {pixel_filter} refuses each of the {count:,} places that were looked at "
        f"(at downsample {planned.grid.downsample:.4g}); {_shown(planned, folder, about, refused)} "
        "(change pixel_filter, or leave the slide out)"
    )


def _shown(planned: PlannedSlide, folder: Path, about: str, pixels: Pixels) -> str:
    try:
        picture = keep_picture(folder, planned.entry.path, about, pixels)
    except OSError as error:
        return f"no picture of them could be written to {folder}: {error.strerror}"
    return f"one of them is in {picture}"
