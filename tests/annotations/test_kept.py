"""Annotations are parsed once, kept, mapped by all, and made anew where they cannot be trusted."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl.annotations import kept as kept_module
from chunkdl.annotations.kept import AnnotationCache
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.reading import read_annotations
from chunkdl.annotations.shapes import Annotations
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.errors import AnnotationError, ConfigError
from tests.annotations.drawings import collection, drawn, feature, square

POINT = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [3, 4]}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two polygons, one that has to be mended, and a point."""
    crossing = feature([(0, 0), (10, 10), (10, 0), (0, 10)], name="a")
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps(collection(feature(square(0, 0, 9), name="b"), crossing, POINT)))
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each file that was parsed, in turn."""
    parsed: list[str] = []

    def read(path: Any, *more: Any, **named: Any) -> Annotations:
        parsed.append(os.fspath(path))
        return read_annotations(path, *more, **named)

    monkeypatch.setattr(kept_module, "read_annotations", read)
    return parsed


def test_a_file_is_parsed_once_and_mapped_afterwards(
    file: Path, tmp_path: Path, reads: list[str]
) -> None:
    """All of it is there: arrays, classes, notes; read-only, in one mapping of the file."""
    parsed = read_annotations(file)
    for _ in range(3):
        found = AnnotationCache(tmp_path / "kept").of_file(file)
        assert found.digest() == parsed.digest()
        assert found.notes == parsed.notes != ()
        assert found.classes == ("a", "b", "unclassified")
        for name, array in found.arrays().items():
            assert not array.flags.owndata
            assert not array.flags.writeable
            assert array.dtype == parsed.arrays()[name].dtype
            np.testing.assert_array_equal(array, parsed.arrays()[name])
    assert len(reads) == 1
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_of_an_empty_file_everything_is_kept_too(tmp_path: Path, reads: list[str]) -> None:
    """Arrays of no bytes."""
    path = tmp_path / "a.json"
    path.write_text("[]")
    for _ in range(2):
        found = AnnotationCache(tmp_path / "kept").of_file(path)
        assert len(found) == 0
        assert found.digest() == drawn().digest()
    assert len(reads) == 1


def test_what_the_result_depends_on_is_in_the_name(
    file: Path, tmp_path: Path, reads: list[str]
) -> None:
    """The file as it is now, how it is read, the slide; not how often."""
    cache = AnnotationCache(tmp_path / "kept")
    cache.of_file(file)
    cache.of_file(file, ReadingOptions(cells="nucleus"))
    cache.of_file(file, size=(50, 50))
    cache.of_file(file, slide="/data/slide.svs")
    cache.of_file(file, offset=(1, 0))
    assert len(reads) == 5
    file.write_text(json.dumps([feature(square(0, 0, 5))]))
    assert cache.of_file(file).areas.tolist() == [25]
    os.utime(file, ns=(0, 0))
    cache.of_file(file)
    assert len(reads) == 7
    cache.of_file(file)
    link = tmp_path / "link.geojson"
    link.symlink_to(file)
    cache.of_file(link)
    assert len(reads) == 7


@pytest.mark.parametrize("damage", ["cut", "empty", "a byte", "another version", "another file"])
def test_what_cannot_be_trusted_is_made_again(
    damage: str, file: Path, tmp_path: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that names it; afterwards it is sound."""
    cache = AnnotationCache(tmp_path / "kept")
    expected = cache.of_file(file).digest()
    (kept,) = (tmp_path / "kept").iterdir()
    data = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(data[:-9])
    elif damage == "empty":
        kept.write_bytes(b"")
    elif damage == "a byte":
        data[len(data) // 2] ^= 1
        kept.write_bytes(data)
    elif damage == "another version":
        data[:16] = b"chunkdl shapes 0"
        kept.write_bytes(data)
    else:
        cache.of_file(file, size=(99, 99))
        (other,) = set((tmp_path / "kept").iterdir()) - {kept}
        kept.write_bytes(other.read_bytes())
        reads.clear()
        reads.append("")
    with caplog.at_level(logging.WARNING):
        assert cache.of_file(file).digest() == expected
    assert str(kept) in caplog.text
    assert "is made again" in caplog.text
    assert len(reads) == 2
    caplog.clear()
    assert cache.of_file(file).digest() == expected
    assert (len(reads), caplog.text) == (2, "")


def test_every_byte_of_a_kept_file_counts(file: Path, tmp_path: Path) -> None:
    """Any bit that is turned anywhere is found."""
    cache = AnnotationCache(tmp_path / "kept")
    expected = cache.of_file(file).digest()
    (kept,) = (tmp_path / "kept").iterdir()
    sound = kept.read_bytes()
    for place in range(0, len(sound), 7):
        kept.write_bytes(sound[:place] + bytes([sound[place] ^ 64]) + sound[place + 1 :])
        assert cache.of_file(file).digest() == expected
        assert kept.read_bytes() == sound


def test_an_unusable_folder_costs_time_and_one_warning(
    file: Path, tmp_path: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The annotations are there all the same."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    cache = AnnotationCache(blocked / "kept")
    for _ in range(2):
        assert len(cache.of_file(file)) == 3
    assert len(reads) == 2
    assert caplog.text.count("annotations cannot be kept in") == 1


def test_a_file_that_was_replaced_while_it_was_read_is_not_kept(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be taken for the new one, or for the old one when that comes back."""

    def read(path: Any, *more: Any, **named: Any) -> Annotations:
        found = read_annotations(path, *more, **named)
        file.write_text("[]")
        return found

    monkeypatch.setattr(kept_module, "read_annotations", read)
    assert len(AnnotationCache(tmp_path / "kept").of_file(file)) == 3
    assert not (tmp_path / "kept").exists()


def test_errors_are_not_kept(tmp_path: Path, reads: list[str]) -> None:
    """A file that was corrected is read."""
    cache = AnnotationCache(tmp_path / "kept")
    with pytest.raises(AnnotationError, match="cannot be read"):
        cache.of_file(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    for _ in range(2):
        with pytest.raises(AnnotationError, match="no JSON"):
            cache.of_file(tmp_path / "a.json")
    assert len(reads) == 2
    assert not (tmp_path / "kept").exists()


# ---- Functions of the user.


@pytest.fixture
def slide(tmp_path: Path) -> str:
    """Any file."""
    (tmp_path / "slide.svs").write_bytes(b"pixels")
    return str(tmp_path / "slide.svs")


def test_a_function_is_called_once_for_slide_and_key(
    slide: str, file: Path, tmp_path: Path
) -> None:
    """Whatever it returns, GeoJSON, annotations, or that there are none; where it is a path each
    time, for what is in the file may be another thing."""
    calls: list[str] = []
    answers: dict[str, Any] = {
        "path": str(file),
        "a path": file,
        "geojson": json.loads(file.read_text()),
        "annotations": read_annotations(file),
        "none": None,
    }
    expected = read_annotations(file).digest()
    for key, answer in answers.items():

        def say(path: str, answer: Any = answer) -> Any:
            calls.append(path)
            return answer

        for _ in range(2):
            found = AnnotationCache(tmp_path / "kept").of_call(OwnAnnotations(say, key), slide)
            if answer is None:
                assert found is None
            else:
                assert found is not None
                assert found.digest() == expected
    assert calls == [slide] * 7
    Path(slide).write_bytes(b"other pixels")
    AnnotationCache(tmp_path / "kept").of_call(OwnAnnotations(say, key), slide)
    assert len(calls) == 8


def test_images_of_one_file_have_annotations_each(slide: str, tmp_path: Path) -> None:
    """The function gets the whole address."""
    calls: list[str] = []
    own = OwnAnnotations(calls.append, "1")
    cache = AnnotationCache(tmp_path / "kept")
    for image in (0, 1, 1):
        cache.of_call(own, f"{slide}#image={image}")
    assert calls == [f"{slide}#image=0", f"{slide}#image=1"]


def test_what_a_function_returns_is_checked(slide: str, tmp_path: Path) -> None:
    """And so is what is given as one."""
    cache = AnnotationCache(tmp_path / "kept")
    with pytest.raises(AnnotationError, match=r"key 'mine'\) returned int"):
        cache.of_call(OwnAnnotations(lambda _: 3, "mine"), slide)
    with pytest.raises(AnnotationError, match="'Blob'"):
        cache.of_call(OwnAnnotations(lambda _: {"type": "Blob"}, "mine"), slide)
    with pytest.raises(AnnotationError, match="cannot be read"):
        cache.of_call(OwnAnnotations(lambda _: None, "mine"), slide + ".gone")
    with pytest.raises(ConfigError, match="cannot be called"):
        OwnAnnotations(3, "mine")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="key=''"):
        OwnAnnotations(str, "")


def test_the_file_that_a_function_names_may_change(slide: str, file: Path, tmp_path: Path) -> None:
    """Without another key."""
    own = OwnAnnotations(lambda _: file, "files 1")
    cache = AnnotationCache(tmp_path / "kept")
    before = cache.of_call(own, slide)
    features = json.loads(file.read_text())
    listed = features["features"] if isinstance(features, dict) else features
    listed[0]["properties"]["classification"] = {"name": "another class"}
    file.write_text(json.dumps(features))
    after = cache.of_call(own, slide)
    assert before is not None
    assert after is not None
    assert "another class" in set(after.classes) - set(before.classes)
