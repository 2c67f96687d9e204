"""Files that are damaged, or made to do harm: a clear error, and never much memory."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from chunkdl.annotations import packing, reading
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.reading import annotations_of_geojson, read_annotations
from chunkdl.errors import AnnotationError, ChunkdlError, ConfigError, Failure
from tests.annotations.drawings import asap, asap_annotation, drawn, feature, read_text, square

BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>
<ASAP_Annotations><Annotations><Annotation Name="&c;"></Annotation></Annotations>
</ASAP_Annotations>"""
DEEP = 100_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("a.xml", BOMB, "entities is not read", id="entities"),
        pytest.param(
            "a.xml",
            BOMB.replace('<!ENTITY a "ha">', '<!ENTITY a SYSTEM "file:///etc/passwd">'),
            "entities is not read",
            id="foreign-file",
        ),
        pytest.param(
            "a.xml", '<!DOCTYPE a SYSTEM "http://x/a.dtd"><a/>', "document type", id="dtd"
        ),
        pytest.param(
            "a.xml", "<ASAP_Annotations>" + "<a>" * DEEP, "nested more than 64", id="deep-xml"
        ),
        pytest.param("a.xml", BOMB[:22], "cannot be read", id="cut-xml"),
        pytest.param("a.json", "[" * DEEP, "no JSON", id="deep-list"),
        pytest.param("a.json", '{"a":' * DEEP, "no JSON", id="deep-object"),
        pytest.param(
            "a.json",
            '[{"type": "Feature", "properties": {"a": ' + "[" * DEEP + "]" * DEEP + "}}]",
            "no JSON",
            id="deep-member",
        ),
        pytest.param(
            "a.json",
            '{"type": "GeometryCollection", "geometries": [' * 50 + "]}" * 50,
            "more than 8 deep",
            id="deep-geometries",
        ),
        pytest.param(
            "a.json",
            '{"type": "Point", "coordinates": [1e999, 1]}',
            "no JSON|cannot be read",
            id="too-large-a-number",
        ),
        pytest.param(
            "a.json",
            '{"type": "Point", "coordinates": [' + "9" * 10_000 + ", 1]}",
            "no JSON|cannot be read",
            id="too-long-a-number",
        ),
        pytest.param("a.json", b'{"type": "\xff\xfe"}', "no JSON", id="no-text"),
        pytest.param("a.json", "", "it is empty", id="empty"),
        pytest.param("a.csv", b"\0" * 1000, "format is not known", id="zeros"),
        pytest.param("a.geojson.gz", b"\x1f\x8bnothing", "cannot be decompressed", id="no-gzip"),
        pytest.param(
            "a.geojson.gz",
            gzip.compress(b"[" + b" " * 100_000 + b"]")[:80],
            "cannot be decompressed",
            id="cut-gzip",
        ),
        pytest.param("a.png", b"\x89PNG" + b"\0" * 99, "give mask_classes", id="no-picture"),
    ],
)
def test_hostile_files_are_refused(name: str, content: Any, said: str, tmp_path: Path) -> None:
    """With a sentence and the file."""
    with pytest.raises(AnnotationError, match=said) as caught:
        read_text(tmp_path, name, content)
    assert caught.value.file == str(tmp_path / name)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one read that is too large as it is."""
    monkeypatch.setattr(reading, "MOST_BYTES", 2**20)
    packed = gzip.compress(b"[" + b" " * 2**26 + b"]")
    assert len(packed) < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(AnnotationError, match="more than 1 MiB"):
            read_text(tmp_path, "a.geojson.gz", packed)
        assert tracemalloc.get_traced_memory()[1] < 2**23
        (tmp_path / "large").write_bytes(b"[")
        os.truncate(tmp_path / "large", 2**40)
        with pytest.raises(AnnotationError, match="more than 1 MiB"):
            read_annotations(tmp_path / "large")
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_counts_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of features and places, and of classes."""
    many = [feature(square(0, 0, 5), name=f"class {number}") for number in range(256)]
    assert len(drawn(*many[:255]).classes) == 255
    with pytest.raises(AnnotationError, match="more than 255 classes"):
        drawn(*many)
    monkeypatch.setattr(packing, "MOST_FEATURES", 9)
    with pytest.raises(AnnotationError, match="more than 9 features"):
        drawn(*many[:10])


def test_a_picture_with_a_huge_size_in_its_header_is_not_decoded(tmp_path: Path) -> None:
    """A few bytes can say 60,000 x 60,000."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    for side in (60_000, 12_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
        (tmp_path / "a.png").write_bytes(picture)
        with pytest.raises(AnnotationError, match="pixels"):
            read_annotations(
                tmp_path / "a.png", ReadingOptions(mask_classes={1: "a"}), size=(side, side)
            )


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe that would be waited for, nothing at all."""
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((tmp_path, "no file"), (tmp_path / "pipe", "no file")):
        with pytest.raises(AnnotationError, match=said):
            read_annotations(path)
    with pytest.raises(AnnotationError, match="there is no such file"):
        read_annotations(tmp_path / "nothing")


def test_a_file_of_another_slide_is_refused_and_a_stray_feature_told(tmp_path: Path) -> None:
    """Where the size of the slide is known."""
    content = [feature(square(0, 0, 5)), feature(square(500, 500, 5))]
    found = read_text(tmp_path, "a.json", content, size=(100, 100))
    assert found.notes == ("feature 1: it lies outside of the slide",)
    with pytest.raises(AnnotationError, match="everything in it is outside of the slide of 90x90"):
        read_text(tmp_path, "a.json", content[1:], size=(90, 90))


def test_features_with_long_names_have_short_messages() -> None:
    """Whatever is in them."""
    bad = feature(square(1e9, 0, 5))
    bad["id"] = "\ud800" + "x" * 10_000
    with pytest.raises(AnnotationError) as caught:
        drawn(json.loads(json.dumps(bad).replace("\\ud800", "y")))
    assert len(str(caught.value)) < 400


def test_values_of_programs_that_are_no_geojson_are_refused() -> None:
    """What JSON cannot say, and what has no end."""
    endless: dict[str, Any] = {"type": "Feature"}
    endless["geometry"] = endless
    for value in ({"type": {1, 2}}, endless, [1], {"type": "Feature", "geometry": 3}):
        with pytest.raises(AnnotationError):
            annotations_of_geojson(value, "the function")


@pytest.mark.parametrize(
    "options",
    [{"format": "pdf"}, {"cells": "membrane"}, {"hole_groups": "hole"}],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    """Where they are given."""
    with pytest.raises(ConfigError, match=next(iter(options))[:5]):
        ReadingOptions(**options)


def test_an_error_keeps_file_and_feature_on_its_way() -> None:
    """Pickled, copied, and as a value in a message of another process."""
    error = AnnotationError("it is wrong", file="/data/a\udcff.xml", feature="3 ('b')")
    assert str(error) == "it is wrong [file /data/a\\udcff.xml, feature 3 ('b')]"
    assert isinstance(error, ChunkdlError)
    for again in (pickle.loads(pickle.dumps(error)), Failure.of(error).to_error()):
        assert type(again) is AnnotationError
        assert (str(again), again.file, again.feature) == (str(error), error.file, error.feature)


def test_an_error_about_many_annotations_names_the_right_one(tmp_path: Path) -> None:
    """Numbers are places in the file."""
    good = asap_annotation(square(0, 0, 5), name="good")
    bad = asap_annotation([(0, 0), (1e9, 0), (5, 5)], name="bad one")
    with pytest.raises(AnnotationError, match=r"feature 2 \('bad one'\)"):
        read_text(tmp_path, "a.xml", asap(good, good, bad))
