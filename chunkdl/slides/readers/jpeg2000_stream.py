"""What the markers of a JPEG 2000 codestream ask of a decoder (ISO/IEC 15444-1, annex A)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

MOST_PRECINCTS = 2**15
"""Of a tile of the codestream. A decoder takes 2 kB for each; writers use one for some thousand
pixels or for all of them."""
MOST_BLOCKS = 2**19
"""Code blocks of a tile of the codestream; a decoder needs 200 bytes for each."""
MOST_PRECINCTS_OF_ALL = 2**17
MOST_PACKETS = 2**24
"""Of a tile: layers, resolutions, components and precincts multiplied, two bytes for each."""
_CODING, _CODING_OF_COMPONENT, _TILE_PART, _DATA, _END = 0x52, 0x53, 0x90, 0x93, 0xD9


def check_coding(data: bytes) -> None:
    """Check how a codestream is divided, before a decoder takes memory for the parts.

    A few hundred bytes can ask for gigabytes: precincts of two pixels, blocks of four, 65535
    layers.

    Args:
        data: the stream; its size marker was checked before, and its colour is not subsampled.

    Raises:
        ValueError: there are more parts than a slide has, or the markers cannot be followed.
    """
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    tile_w, tile_h = struct.unpack_from(">2I", data, 24)
    (components,) = struct.unpack_from(">H", data, 40)
    width, height = min(tile_w, right - left), min(tile_h, bottom - top)
    tiles = ((right - left) // tile_w + 1) * ((bottom - top) // tile_h + 1)
    most_layers = 1
    for layers, style in _coding_styles(data, components):
        most_layers = max(most_layers, layers)
        precincts, blocks, widest = _parts(style, width, height)
        if (
            components * precincts > MOST_PRECINCTS
            or tiles * components * precincts > MOST_PRECINCTS_OF_ALL
            or components * blocks > MOST_BLOCKS
            or most_layers * (style[0] + 1) * components * widest > MOST_PACKETS
        ):
            raise ValueError(
                f"JPEG 2000 stream of {precincts} precincts, {blocks} code blocks and "
                f"{most_layers} layers in a tile of {width}x{height} pixels"
            )


def _parts(style: bytes, width: int, height: int) -> tuple[int, int, int]:
    """Precincts and code blocks of a component, and the most precincts of a resolution."""
    levels, block_w, block_h = style[0], style[1] + 2, style[2] + 2
    precincts = blocks = widest = 0
    for resolution in range(levels + 1):
        size = style[5 + resolution] if len(style) > 5 + resolution else 0xFF
        shrunk = levels - resolution
        across, down = -(-width // 2**shrunk), -(-height // 2**shrunk)
        wide, high = 2 ** (size & 15), 2 ** (size >> 4)
        here = (across // wide + 1) * (down // high + 1)
        precincts, widest = precincts + here, max(widest, here)
        # A block is never larger than the part of a precinct that lies in its band.
        block = min(2**block_w, wide), min(2**block_h, high)
        blocks += (across // block[0] + 1) * (down // block[1] + 1)
    return precincts, blocks, widest


def _coding_styles(data: bytes, components: int) -> Iterator[tuple[int, bytes]]:
    """Layers (1 where the marker does not say), and the rest of each marker of a coding style."""
    at, part_at = 2, -1
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at} of a JPEG 2000 stream: it is damaged")
        marker = data[at + 1]
        if marker == _END:
            return
        if marker == _DATA:
            (length,) = struct.unpack_from(">I", data, part_at + 6)
            if part_at < 0 or 0 < length < at - part_at:
                raise ValueError("an impossible tile part in a JPEG 2000 stream: it is damaged")
            if length == 0:
                return
            at = part_at + length
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        if marker == _TILE_PART:
            part_at = at
        of_component = 2 if components < 257 else 3
        skipped = {_CODING: 5, _CODING_OF_COMPONENT: of_component}.get(marker)
        if length < 2 or (skipped is not None and len(body) < skipped + 5):
            raise ValueError("a marker of a JPEG 2000 stream is too short: it is damaged")
        if skipped is not None:
            layers = struct.unpack_from(">H", body, 2)[0] if marker == _CODING else 1
            style = body[skipped:]
            if style[0] > 32 or max(style[1:3]) > 8:
                raise ValueError("an impossible coding style in a JPEG 2000 stream: it is damaged")
            yield layers, style
        at += 2 + length
