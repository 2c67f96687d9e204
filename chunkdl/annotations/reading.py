"""A file of annotations, in whatever format, as one value: what it is, how large, what is in it."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from chunkdl.annotations.asap import read_asap
from chunkdl.annotations.coco import read_coco
from chunkdl.annotations.drawn import Drawn, Notes, Reader, Source, named
from chunkdl.annotations.geojson import TYPES, read_geojson
from chunkdl.annotations.histomics import read_histomics
from chunkdl.annotations.json_text import BAD_JSON, strict_json
from chunkdl.annotations.mending import sound_features
from chunkdl.annotations.names import stem_of
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.packing import pack
from chunkdl.annotations.raster_masks import read_mask
from chunkdl.annotations.roi_csv import NEEDED, read_roi_csv
from chunkdl.annotations.shapes import UNITS, Annotations
from chunkdl.errors import AnnotationError, ConfigError

MOST_BYTES = 2**30
"""Of a file, uncompressed. Reading takes about as much again for the packed arrays."""
_HEAD = 512
_JSON = (b"{", b"[")
_GZIP = b"\x1f\x8b"
_PICTURES = (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BOM = b"\xef\xbb\xbf"

READERS: Mapping[str, Reader] = {
    "geojson": read_geojson,
    "asap": read_asap,
    "slideflow": read_roi_csv,
    "coco": read_coco,
    "histomics": read_histomics,
    "mask": read_mask,
}
"""By the name of the format."""


def read_annotations(
    path: str | os.PathLike[str],
    options: ReadingOptions | None = None,
    *,
    size: tuple[int, int] | None = None,
    slide: str = "",
    offset: tuple[float, float] = (0.0, 0.0),
) -> Annotations:
    """Read a file of annotations.

    Args:
        path: the file; those of text may be compressed with gzip.
        options: how it is read.
        size: width and height of level 0 of the slide, pixels. A raster mask cannot be read
            without it. With it, coordinates that are outside of the slide are noticed.
        slide: path or name of the slide, which chooses an image of a COCO file.
        offset: x and y that are added to all coordinates, level-0 pixels: for programs that show
            only the scanned part of a slide.

    Raises:
        AnnotationError: the file cannot be read, or is not what it has to be; names the file and
            the feature.
        ConfigError: there are polygons, and shapely is not installed.
    """
    file = os.fspath(path)
    options = options or ReadingOptions()
    data = _content(file)
    source = _source(file, data or b"", options, size, slide, offset)
    kind: str = options.format
    if kind == "auto":
        kind = "mask" if data is None else format_of(source)
    elif (kind == "mask") != (data is None):
        what = "a picture" if data is None else "no picture"
        raise source.error(f"it is {what}, and format={kind!r} was asked for")
    return _read(source, READERS[kind])


def annotations_of_geojson(
    value: dict[str, Any] | list[Any],
    name: str,
    options: ReadingOptions | None = None,
    *,
    size: tuple[int, int] | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Annotations:
    """The annotations that a program has made as GeoJSON in dicts and lists.

    Args:
        value: a FeatureCollection, a list of features, a feature or a geometry.
        name: of what made it, for messages.
        options: how it is read.
        size: width and height of level 0 of the slide, pixels.
        offset: as of `read_annotations`.

    Raises:
        AnnotationError: it is no GeoJSON.
        ConfigError: there are polygons, and shapely is not installed.
    """
    try:
        data = strict_json(json.dumps(value).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise AnnotationError(f"it is no GeoJSON: {error}", file=name) from error
    source = _source(name, data, options or ReadingOptions(), size, "", offset)
    return _read(source, read_geojson)


def _source(
    file: str,
    data: bytes,
    options: ReadingOptions,
    size: tuple[int, int] | None,
    slide: str,
    offset: tuple[float, float],
) -> Source:
    if not all(map(math.isfinite, offset)):
        raise ConfigError(f"offset={offset} must be two numbers, level-0 pixels")
    return Source(file, data, options, size, stem_of(slide), offset, Notes())


def _read(source: Source, reader: Reader) -> Annotations:
    found = pack(sound_features(_moved(reader(source), source.offset), source), source)
    if source.size is not None and len(found):
        _check_places(found, source.size, source)
    return dataclasses.replace(found, notes=source.notes.sentences())


def _moved(drawn: Iterator[Drawn], offset: tuple[float, float]) -> Iterator[Drawn]:
    for feature in drawn:
        if any(offset):
            feature.polygons = [[ring + offset for ring in rings] for rings in feature.polygons]
            feature.points = None if feature.points is None else feature.points + offset
        yield feature


def _check_places(found: Annotations, size: tuple[int, int], source: Source) -> None:
    """Tell of features outside of the slide, and refuse a file that has no others."""
    left, top, right, bottom = found.boxes.T
    outside = (right < 0) | (bottom < 0) | (left >= size[0] * UNITS) | (top >= size[1] * UNITS)
    if outside.all():
        first = (found.boxes[0] / UNITS).round(1).tolist()
        raise source.error(
            f"everything in it is outside of the slide of {size[0]}x{size[1]} pixels (the first "
            f"feature lies at {first}): coordinates must be level-0 pixels, and the file that of "
            "this slide"
        )
    for number in found.numbers[outside].tolist():
        source.notes.tell("it lies outside of the slide", named(number))


def format_of(source: Source) -> str:
    """The format of a text, by what is in it.

    Raises:
        AnnotationError: it is none of those that are read.
    """
    start = source.data[:_HEAD].lstrip()
    if start.startswith(_JSON):
        return _json_format(source)
    # UTF-16 begins with a mark of its own, which the parser of XML knows.
    if start.startswith((b"<", b"\xff\xfe", b"\xfe\xff")):
        return "asap"
    header = start.partition(b"\n")[0].lower()
    if all(name.encode() in header for name in NEEDED):
        return "slideflow"
    what = "it is empty" if not start else f"it begins with {start[:40]!r}"
    raise source.error(
        f"the format is not known: {what}. GeoJSON, ASAP's XML, slideflow's CSV, COCO, "
        "HistomicsTK's JSON and raster masks are read"
    )


_NONE = msgspec.Raw(b"null")


class _Members(msgspec.Struct):
    """What tells the formats of JSON apart."""

    type: Any = None
    annotations: msgspec.Raw = _NONE
    annotation: msgspec.Raw = _NONE
    elements: msgspec.Raw = _NONE


_MEMBERS = msgspec.json.Decoder(_Members)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def _json_format(source: Source) -> str:
    try:
        whole = source.data
        if whole.lstrip()[:1] == b"[":
            items = _LIST.decode(whole)
            if not items:
                return "geojson"
            whole = bytes(items[0])
        members = _MEMBERS.decode(whole)
    except BAD_JSON as error:
        raise source.error(f"it is no JSON of annotations: {error}") from error
    if members.type in TYPES:
        return "geojson"
    if members.annotations != _NONE:
        return "coco"
    if members.elements != _NONE or members.annotation != _NONE:
        return "histomics"
    raise source.error(
        "it is JSON, but neither GeoJSON (type), nor COCO (annotations), nor of HistomicsTK "
        "(elements)"
    )


def _content(file: str) -> bytes | None:
    """What is in the file, uncompressed; None for pictures, which are read by their path."""
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise AnnotationError("it is no file", file=file)
        with open(file, "rb") as opened:
            head = opened.read(_HEAD)
            if head.startswith(_PICTURES):
                return None
            if facts.st_size > MOST_BYTES:
                raise _too_large(file)
            opened.seek(0)
            if not head.startswith(_GZIP):
                return _text(opened.read(MOST_BYTES + 1))
            with gzip.GzipFile(fileobj=opened) as unpacked:
                data = unpacked.read(MOST_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AnnotationError(f"it cannot be decompressed: {error}", file=file) from error
    except FileNotFoundError as error:
        raise AnnotationError("there is no such file", file=file) from error
    except OSError as error:
        raise AnnotationError(f"it cannot be read: {error.strerror}", file=file) from error
    if len(data) > MOST_BYTES:
        raise _too_large(file)
    return _text(data)


def _text(data: bytes) -> bytes:
    text = data.removeprefix(_BOM)
    return strict_json(text) if text[:_HEAD].lstrip().startswith(_JSON) else text


def _too_large(file: str) -> AnnotationError:
    return AnnotationError(
        f"it has more than {MOST_BYTES // 2**20} MiB, and is not read: export it without "
        "measurements, or split it",
        file=file,
    )
