"""How stored samples become RGB of 8 bits: one stated rule for each kind of pixel.

What no rule covers is refused; nothing is ever narrowed or guessed in silence. `docs/formats.md`
has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from chunkdl.slides.readers.codecs import (
    BLACK_IS_ZERO,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    YCBCR,
    Decoder,
    Samples,
)
from chunkdl.slides.readers.refusals import Refused
from chunkdl.slides.readers.tiled import TileMaker, single
from chunkdl.slides.slide import PixelRule, Pixels

Alpha = Literal["associated", "unassociated"]
COLOUR_NAMES = (("red", "green", "blue"), ("r", "g", "b"))
OTHER_PHOTOMETRICS = {
    4: "a transparency mask",
    5: "CMYK inks",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a colour filter array",
    34892: "linear raw",
    32844: "LogL",
    32845: "LogLuv",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPixels:
    """How the pixels of an image are stored.

    Attributes:
        photometric: value of the PhotometricInterpretation tag.
        bits: of a sample.
        per_stream: samples of each stream of a tile, in order; together they are numbered from 0.
        alpha: kind of the last sample where it is an alpha channel.
        unexplained: number of samples at the end whose meaning the file does not state.
        colour_map: shape (3, 2**bits), uint16, of palette images.
        names: of the channels where the file names them, else empty.
    """

    photometric: int
    bits: int = 8
    per_stream: tuple[int, ...] = (3,)
    alpha: Alpha | None = None
    unexplained: int = 0
    colour_map: npt.NDArray[np.uint16] | None = None
    names: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Samples of a pixel."""
        return sum(self.per_stream)

    @property
    def is_plain(self) -> bool:
        """8-bit RGB in one stream, which is delivered as it is."""
        return (
            self.per_stream == (3,)
            and self.bits == 8
            and self.photometric in (RGB, YCBCR)
            and self.alpha is None
            and self.unexplained == 0
        )


def tile_maker(
    pixels: StoredPixels, decoders: Sequence[Decoder], rule: PixelRule, background: Sequence[int]
) -> TileMaker:
    """Makes RGB of the streams of a tile.

    Args:
        pixels: how they are stored.
        decoders: of each stream.
        rule: what the user asked for.
        background: RGB that transparent pixels are laid on.

    Raises:
        Refused: no rule covers such pixels; the message says which setting would.
    """
    chosen = chosen_channels(pixels, rule)
    if pixels.is_plain and chosen == (0, 1, 2):
        return single(decoders[0])
    convert = _converter(pixels, chosen, rule, background)
    dtype = np.dtype(np.uint8 if pixels.bits == 8 else np.uint16)
    # A stream of which no channel was chosen is not decoded.
    ends = np.cumsum(pixels.per_stream).tolist()
    starts = [end - count for end, count in zip(ends, pixels.per_stream, strict=True)]
    wanted = set(chosen) | ({pixels.total - 1} if pixels.alpha else set())
    parts = [
        (stream, starts[stream], count)
        for stream, count in enumerate(pixels.per_stream)
        if wanted & set(range(starts[stream], starts[stream] + count))
    ]

    def make(streams: Sequence[bytes], tile: Pixels) -> None:
        height, width = tile.shape[:2]
        samples: dict[int, Samples] = {}
        for stream, start, count in parts:
            stored = np.empty((height, width, count), dtype)
            decoders[stream](streams[stream], stored)
            for sample in range(count):
                samples[start + sample] = stored[..., sample]
        convert(samples, tile)

    return make


def chosen_channels(pixels: StoredPixels, rule: PixelRule) -> tuple[int, ...]:
    """The samples that become red, green and blue (three), or grey (one).

    Raises:
        Refused: the file does not say and the user did not choose, or there is no such sample.
    """
    if rule.channels is not None:
        beyond = [channel for channel in rule.channels if channel >= pixels.total]
        if beyond:
            raise Refused(
                f"channels={rule.channels} names sample {beyond[0]}, and its pixels have "
                f"{pixels.total} samples{_named(pixels)}"
            )
        if pixels.photometric == PALETTE:
            raise Refused("channels= cannot be applied to a palette image: leave it out")
        return rule.channels
    if pixels.photometric in OTHER_PHOTOMETRICS:
        raise Refused(
            f"its samples are {OTHER_PHOTOMETRICS[pixels.photometric]}, of which no colour is "
            "made: convert the file to RGB"
        )
    if pixels.unexplained:
        raise Refused(
            f"its pixels have {pixels.total} samples and the file does not say what the last "
            f"{pixels.unexplained} are: channels=(0, 1, 2) takes the first three as red, green "
            "and blue, channels=(0,) the first as grey"
        )
    colours = pixels.total - (pixels.alpha is not None)
    if pixels.photometric in (RGB, YCBCR) and colours == 3:
        return (0, 1, 2)
    if pixels.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) and colours == 1:
        return (0,)
    names = tuple(name.strip().lower() for name in pixels.names)
    if names[:3] in COLOUR_NAMES and colours == 3:
        return (0, 1, 2)
    raise Refused(
        f"its pixels have {colours} channels{_named(pixels)} and the file does not say that they "
        "are red, green and blue: channels=(0, 1, 2) takes the first three as these, "
        "channels=(0,) shows the first as grey"
    )


def _named(pixels: StoredPixels) -> str:
    return f" ({', '.join(pixels.names[:12])})" if any(pixels.names) else ""


Converter = Callable[[dict[int, Samples], Pixels], None]


def _converter(
    pixels: StoredPixels, chosen: tuple[int, ...], rule: PixelRule, background: Sequence[int]
) -> Converter:
    """From samples by number to RGB."""
    if pixels.photometric == PALETTE:
        return _palette(pixels)
    if pixels.bits == 16:
        if rule.window is None:
            raise Refused(
                "its samples have 16 bits: give window=(low, high), the values that become 0 and "
                "255, such as window=(0, 65535), or (0, 4095) for a camera of 12 bits"
            )
        if pixels.alpha:
            raise Refused("it has 16 bits a sample and an alpha channel: convert the file to RGB")
        table = window_table(*rule.window)
    elif pixels.bits == 8:
        table = np.arange(256, dtype=np.uint8)
    else:
        raise Refused(f"its samples have {pixels.bits} bits; 8 and 16 are read")
    if pixels.photometric == WHITE_IS_ZERO:
        table = (255 - table).astype(np.uint8)
    through = pixels.bits == 16 or pixels.photometric == WHITE_IS_ZERO
    alpha, last = pixels.alpha, pixels.total - 1
    colours = chosen * 3 if len(chosen) == 1 else chosen

    def convert(samples: dict[int, Samples], tile: Pixels) -> None:
        for place, channel in enumerate(colours):
            values = samples[channel]
            tile[..., place] = table[values] if through else values
        if alpha is not None:
            lay_on(tile, samples[last], background, premultiplied=alpha == "associated")

    return convert


def window_table(low: float, high: float) -> npt.NDArray[np.uint8]:
    """The 8-bit value of each 16-bit value: (v - low) / (high - low) · 255, rounded, clipped."""
    values = np.arange(2**16, dtype=np.float64)
    scaled = np.rint((values - low) * (255 / (high - low)))
    table: npt.NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return table


def lay_on(
    tile: Pixels, alpha: npt.NDArray[np.uint8], background: Sequence[int], *, premultiplied: bool
) -> None:
    """Lay pixels on a background in place: colour · alpha + background · (1 - alpha), rounded."""
    shown = alpha.astype(np.uint16)
    for place, value in enumerate(background):
        colour = tile[..., place].astype(np.uint16)
        if not premultiplied:
            colour = (colour * shown + 127) // 255
        laid = colour + ((255 - shown) * np.uint16(value) + 127) // 255
        tile[..., place] = np.minimum(laid, 255)


def _palette(pixels: StoredPixels) -> Converter:
    """Colours of 16 bits from the ColorMap tag, of which the high byte is kept (TIFF 6.0)."""
    colour_map: npt.NDArray[Any] | None = pixels.colour_map
    if pixels.bits != 8 or colour_map is None or colour_map.shape != (3, 256):
        raise Refused("it is a palette image without a table of 256 colours: convert it to RGB")
    table = (colour_map >> 8).astype(np.uint8).T

    def convert(samples: dict[int, Samples], tile: Pixels) -> None:
        tile[...] = table[samples[0]]

    return convert
