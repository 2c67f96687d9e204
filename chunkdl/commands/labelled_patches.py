"""SmallChunks of the first windows with their label masks, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.window_plans import Region
from chunkdl.sampling.windows import Window
from chunkdl.slides.resampling import read_target_into
from chunkdl.slides.slide import Pixels

LONGEST_PX = 120
"""Side of a SmallChunk in the picture; larger ones are made smaller."""
OPACITY = 0.4
GAP_PX = 4
MOST = 16

Colour = tuple[int, int, int]


def labelled_patches(
    planned: PlannedSlide,
    samples: Sequence[Region],
    colour_of_class: Callable[[int], Colour],
    width_px: int,
) -> Image.Image | None:
    """The first SmallChunks of each window, each beside itself with the colours of its classes.

    Args:
        planned: the slide.
        samples: BigChunks of it.
        colour_of_class: by index of the class.
        width_px: of the picture.

    Returns:
        None where the stream does not look at annotations, or nothing is drawn.

    Raises:
        SlideError: the slide cannot be read there.
    """
    regions, side_px = planned.opened.regions, planned.lattice.across.smallchunk_px
    if regions is None or not samples:
        return None
    each = -(-MOST // len(samples))
    corners = [
        (int(x), int(y))
        for one in samples
        for x, y in zip(one.draws.x[:each], one.draws.y[:each], strict=True)
    ][:MOST]
    shown_px = min(side_px, LONGEST_PX)
    pairs = max(1, (width_px + 2 * GAP_PX) // (2 * shown_px + 3 * GAP_PX))
    rows = -(-len(corners) // pairs)
    sheet = Image.new("RGB", (width_px, rows * (shown_px + 2 * GAP_PX)), "white")
    for number, (x, y) in enumerate(corners):
        rgb = np.empty((side_px, side_px, 3), np.uint8)
        read_target_into(planned.slide, planned.grid, rgb, x, y)
        classes = regions.window_classes(planned.grid, Window(x, y, side_px))
        left = number % pairs * (2 * shown_px + 3 * GAP_PX)
        top = number // pairs * (shown_px + 2 * GAP_PX) + GAP_PX
        sheet.paste(_shown(rgb, shown_px), (left, top))
        sheet.paste(
            _shown(_coloured(rgb, classes, colour_of_class), shown_px),
            (left + shown_px + GAP_PX // 2, top),
        )
    return sheet


def _coloured(
    rgb: Pixels,
    classes: Pixels,
    colour_of_class: Callable[[int], Colour],
) -> Pixels:
    found = rgb.astype(np.float32)
    for label in np.unique(classes[classes > 0]).tolist():
        here = classes == label
        found[here] += OPACITY * (np.array(colour_of_class(label - 1)) - found[here])
    return found.astype(np.uint8)


def _shown(rgb: Pixels, side_px: int) -> Image.Image:
    return Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR)
