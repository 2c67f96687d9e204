"""Coordinates in a smaller picture of the slide, brought to level 0."""

from __future__ import annotations

from chunkdl.annotations.drawn import Source

ASPECT_TOLERANCE = 0.01
"""Pictures are cut off or rounded to whole pixels; more than that is another slide."""


def scale_to_slide(width: float, height: float, source: Source, what: str) -> tuple[float, float]:
    """Level-0 pixels per pixel of a picture of the whole slide, (x, y).

    Both axes may differ by 1 %, or by what one pixel of the picture makes.

    Args:
        width, height: of the picture.
        source: with the size of the slide.
        what: the picture, for the message.

    Raises:
        AnnotationError: its aspect ratio is another one, the size of the slide is not known, or an
            offset was given.
    """
    if source.size is None:
        raise source.error(f"{what} has a size of its own, and the size of the slide is not known")
    if any(source.offset):
        raise source.error(f"{what} shows the whole slide, so the offset must be (0, 0)")
    width0, height0 = source.size
    if not (width > 0 and height > 0):
        raise source.error(f"{what} has {width:g}x{height:g} pixels")
    across, down = width0 / width, height0 / height
    close = abs(across / down - 1) <= ASPECT_TOLERANCE
    within = abs(width - width0 / down) <= 1 or abs(height - height0 / across) <= 1
    if not (close or within):
        raise source.error(
            f"{what} has {width:g}x{height:g} pixels and the slide {width0}x{height0}: the aspect "
            "ratios differ by more than 1 %, so it is not a picture of this slide"
        )
    return across, down
