"""What the markers of a JPEG stream say, read without decoding (ITU-T T.81, annex B)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

JPEG_END = b"\xff\xd9"
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_SEQUENTIAL = {0xC0, 0xC1}
_SCAN_MARKER = b"\xff\xda"
_SCAN, _APP0, _APP14 = 0xDA, 0xE0, 0xEE
_MOST_SEGMENTS = 64
MOST_SCANS = 64
"""Of a progressive stream; writers make ten. A decoder goes through all pixels for each."""


@dataclass(frozen=True, slots=True)
class JpegFacts:
    """What a stream says of itself.

    Attributes:
        height, width: pixels.
        components: of a pixel.
        bits: of a sample.
        ycbcr: whether three components are YCbCr (True) or RGB (False); None: nothing says it.
        sequential: whether the frame is, and not progressive or lossless.
        said_by: bytes from the start that say all this; streams that begin alike have it in common.
        scan_at: where the first scan begins, bytes.
    """

    height: int
    width: int
    components: int
    bits: int
    ycbcr: bool | None
    sequential: bool
    said_by: int
    scan_at: int


def jpeg_facts(data: bytes) -> JpegFacts:
    """The facts of a JPEG stream; its tables may be elsewhere.

    The colour space is YCbCr for JFIF (whose standard knows nothing else), else what Adobe's APP14
    segment says, else RGB where the components are called so. This is libjpeg's order.

    Raises:
        ValueError: it is not a JPEG stream, or it has no frame and scan.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG stream")
    at, frame, jfif, adobe, sequential, said_by = 2, b"", False, -1, False, 2
    for _ in range(_MOST_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if len(data) < at + 5 or data[at] != 0xFF:
            break
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker == _SCAN:
            ycbcr = _ycbcr(frame, jfif, adobe)
            bits, height, width, components = struct.unpack_from(">BHHB", frame)
            return JpegFacts(height, width, components, bits, ycbcr, sequential, said_by, at)
        body = data[at + 4 : at + 2 + length]
        if marker in _FRAMES or marker in (_APP0, _APP14):
            said_by = at + 2 + length
        if marker in _FRAMES:
            frame, sequential = body, marker in _SEQUENTIAL
        elif marker == _APP0 and body[:4] == b"JFIF":
            jfif = True
        elif marker == _APP14 and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        at += 2 + max(2, length)
    raise ValueError("a JPEG stream without a scan: it is cut short or overwritten")


def _ycbcr(frame: bytes, jfif: bool, adobe: int) -> bool | None:
    """Whether three components are YCbCr; None: there are others, or nothing says it."""
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5]:
        raise ValueError("a JPEG stream without a frame: it is overwritten")
    if frame[5] != 3:
        return None
    if jfif:
        return True
    if adobe >= 0:
        return adobe != 0
    return False if frame[6:15:3] == b"RGB" else None


def check_jpeg_end(data: bytes) -> None:
    """Check that a stream has its end marker; bytes behind it are allowed.

    The decoder only warns when data run out, fills the rest of the tile with grey, and nobody sees
    the warning.

    Raises:
        ValueError: the marker is missing.
    """
    if data[-2:] == JPEG_END:
        return
    # In the data of a scan 0xFF is followed by 0 or by a restart marker, so the first end marker
    # behind the first scan is the end. Segments before it may hold a thumbnail with its own end.
    if data.find(JPEG_END, jpeg_facts(data).scan_at) < 0:
        raise ValueError("the stream has no end marker: it is cut short or overwritten")


def check_jpeg_scans(data: bytes, facts: JpegFacts) -> None:
    """Check that a stream does not have so many scans that decoding it takes minutes.

    Raises:
        ValueError: it has.
    """
    at = data.find(_SCAN_MARKER, facts.said_by) + 4
    if facts.sequential and 4 <= at < len(data) and data[at] == facts.components:
        # The decoder stops behind a first scan that has all components.
        return
    # In the data of a scan 0xFF is followed by 0 or by a restart marker, so these are the scans.
    scans = data.count(_SCAN_MARKER)
    if scans > MOST_SCANS:
        raise ValueError(f"a JPEG stream of {scans} scans; at most {MOST_SCANS} are read")
