"""Names that the DICOM standard gives: the storage class of slides, and the transfer syntaxes."""

from __future__ import annotations

from collections.abc import Mapping

SOP_CLASS_WSM = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage (PS3.4, table B.5-1)."""

LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
"""Kinds of values whose length takes four bytes, after two that are empty (PS3.5, 7.1.2)."""

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = (
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    *("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),
)
JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")

TRANSFER_SYNTAXES: Mapping[str, str] = {
    EXPLICIT_LITTLE_ENDIAN: "uncompressed",
    RLE: "RLE",
    JPEG[0]: "JPEG",
    JPEG[1]: "JPEG extended",
    JPEG_LS[0]: "JPEG-LS lossless",
    JPEG_LS[1]: "JPEG-LS near-lossless",
    JPEG_2000[0]: "JPEG 2000 lossless",
    JPEG_2000[1]: "JPEG 2000",
    JPEG_2000[2]: "HTJ2K lossless",
    JPEG_2000[3]: "HTJ2K lossless RPCL",
    JPEG_2000[4]: "HTJ2K",
    JPEG_XL[0]: "JPEG XL lossless",
    JPEG_XL[1]: "JPEG XL of a JPEG",
    JPEG_XL[2]: "JPEG XL",
}
"""The transfer syntaxes that are read (PS3.6, annex A) and what people call them."""

OTHER_SYNTAXES: Mapping[str, str] = {
    "1.2.840.10008.1.2": "implicit VR",
    "1.2.840.10008.1.2.2": "big endian",
    DEFLATED: "deflated",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
}
"""Others, so that a refusal can name them."""
