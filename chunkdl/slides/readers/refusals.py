"""The two ways in which a reader says no; `registry.open_slide` makes a `SlideError` of both."""

from __future__ import annotations

from chunkdl.slides.slide import PixelRule


class NotTaken(Exception):
    """The file may be sound, but another reader has to take it; the message says what is in it."""


class Refused(Exception):
    """No reader may take the file: it would be read wrong. The message says what would help."""


def refuse_other_channels(rule: PixelRule, reader: str) -> None:
    """For a reader that gives red, green and blue as they are.

    Raises:
        Refused: the rule names other channels, or another order.
    """
    if rule.channels not in (None, (0, 1, 2)):
        raise Refused(
            f"channels={rule.channels} was asked for, and the reader {reader!r} gives red, green "
            "and blue as they are: leave out channels, or convert the file to TIFF"
        )
