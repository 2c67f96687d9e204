"""Which annotation file has the name of which slide."""

from __future__ import annotations

import os

from chunkdl.slides.suffixes import SLIDE_SUFFIXES

SUFFIXES: dict[str, tuple[str, ...]] = {
    "geojson": (".geojson", ".json"),
    "asap": (".xml",),
    "slideflow": (".csv",),
    "coco": (".json",),
    "histomics": (".json", ".anot"),
    "mask": (".png", ".tif", ".tiff"),
}
"""How the names of annotation files end, by format; those of text may have ``.gz`` behind it."""
_KNOWN = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
_PARTS = {*_KNOWN, *SLIDE_SUFFIXES, ".ome", ".gz"}


def stem_of(path: str) -> str:
    """The name of a slide or annotation file without folder and suffixes.

    "a/CMU-1.svs", "CMU-1.geojson", "CMU-1.svs.geojson.gz" and "CMU-1.ome.tif" all have the stem
    "CMU-1"; only suffixes of slides and annotations are taken off.
    """
    name = os.path.basename(path.replace("\\", "/") if "/" not in path else path)
    while True:
        rest, suffix = os.path.splitext(name)
        if not rest or suffix.lower() not in _PARTS:
            return name
        name = rest


def may_be(file: str, kind: str) -> bool:
    """Whether a file has a name that annotations have.

    Args:
        file: its name.
        kind: the format, or "auto" for any.
    """
    name = file.lower().removesuffix(".gz")
    suffix = os.path.splitext(name)[1]
    return suffix in (_KNOWN if kind == "auto" else SUFFIXES[kind])
