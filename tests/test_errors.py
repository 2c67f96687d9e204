"""Errors cross process borders whole: by pickle and copy, and as values in messages."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl import errors
from chunkdl.errors import (
    ChunkdlError,
    Failure,
    GetTimeout,
    PackingError,
    RemoteTraceback,
    SlideError,
    WorkerFailed,
)
from chunkdl.transport.protocol.codec import decode, encode
from chunkdl.transport.protocol.engine_messages import LoadFailed, StreamFailed, WorkerBroke

CLASSES = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, ChunkdlError)
]
SLIDE_CLASSES = [kind for kind in CLASSES if issubclass(kind, SlideError)]
REGION = (10, 20, 300, 400)


def raised(error: Exception) -> Exception:
    """The error with a traceback and a cause, as one that was caught."""
    try:
        try:
            raise OSError(5, "input/output error")
        except OSError as cause:
            raise error from cause
    except Exception as caught:
        return caught


def facts(error: Exception) -> tuple[object, ...]:
    """What a user can see of an error."""
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_every_error_survives_copying_and_pickling(kind: type[ChunkdlError], again: object) -> None:
    """With class and message, raised or not, and built with a keyword or without anything."""
    assert callable(again)
    for error in (kind("what is wrong"), kind(message="what is wrong"), kind()):
        assert facts(again(error)) == facts(error)
        assert facts(again(raised(error))) == facts(error)


@pytest.mark.parametrize("kind", SLIDE_CLASSES)
def test_an_error_of_a_slide_keeps_what_it_knows(kind: type[SlideError]) -> None:
    """Slide, level and region, as attributes and in the message, once."""
    error = kind("bad tile", slide="/data/a.svs", level=2, region=REGION)
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert facts(again) == facts(error)
        assert (again.slide, again.level, again.region) == ("/data/a.svs", 2, REGION)
    expected = "bad tile [slide /data/a.svs, level 2, region 300x400 at (10, 20)]"
    assert str(error) == expected


def test_an_error_of_packing_keeps_its_sizes() -> None:
    """What was wanted and what there was; none where the size is not the reason."""
    error = PackingError("too large", wanted_bytes=9, available_bytes=7)
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert facts(again) == facts(error)
        assert (again.wanted_bytes, again.available_bytes) == (9, 7)
    assert PackingError("a lock").wanted_bytes is PackingError("a lock").available_bytes is None


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_the_same_class_on_the_other_side_of_a_message(
    kind: type[ChunkdlError],
) -> None:
    """With its message; the cause shows where it was raised over there."""
    failure = Failure.of(raised(kind("what is wrong")))
    message = decode(encode(StreamFailed(failure)))
    assert isinstance(message, StreamFailed)
    error = message.failure.to_error()
    assert type(error) is kind
    assert str(error) == "what is wrong"
    assert isinstance(error.__cause__, RemoteTraceback)
    report = "".join(traceback.format_exception(error))
    assert "input/output error" in report
    assert 'raise OSError(5, "input/output error")' in report
    assert f"{kind.__name__}: what is wrong" in report


@pytest.mark.parametrize("kind", SLIDE_CLASSES)
def test_an_error_of_a_slide_names_it_on_the_other_side_too(kind: type[SlideError]) -> None:
    """The message has the place once, not twice."""
    there = kind("bad tile", slide="/data/a.svs", level=2, region=REGION)
    message = decode(encode(LoadFailed(1, 0, 3, False, Failure.of(there))))
    assert isinstance(message, LoadFailed)
    here = message.failure.to_error()
    assert type(here) is kind
    assert isinstance(here, SlideError)
    assert str(here) == str(there)
    assert (here.slide, here.level, here.region) == (there.slide, there.level, there.region)


class Unknown(Exception):
    """A class that only the worker has."""


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), Unknown("by 0"), KeyError("by 0")])
def test_an_error_of_another_library_becomes_worker_failed(error: Exception) -> None:
    """Nothing of it is unpickled; its class is in the message."""
    here = Failure.of(raised(error)).to_error()
    assert type(here) is WorkerFailed
    module = type(error).__module__
    name = type(error).__name__
    assert str(here) == f"{name if module == 'builtins' else f'{module}.{name}'}: {error}"
    assert type(error).__name__ in str(here.__cause__)


def test_a_class_of_the_user_with_a_name_of_ours_stays_the_users() -> None:
    """A user's own `Closed` does not end a training as ours would."""
    for name in ("Closed", "EndOfStream", "ConfigError"):
        here = Failure.of(raised(type(name, (Exception,), {})("mine"))).to_error()
        assert type(here) is WorkerFailed
        assert str(here) == f"{__name__}.{name}: mine"


def test_the_sizes_of_an_error_of_packing_cross_processes() -> None:
    """What was wanted and what there was are numbers on the other side too."""
    there = PackingError("too large", wanted_bytes=9, available_bytes=7)
    message = decode(encode(StreamFailed(Failure.of(there))))
    assert isinstance(message, StreamFailed)
    here = message.failure.to_error()
    assert isinstance(here, PackingError)
    assert (here.wanted_bytes, here.available_bytes) == (9, 7)


@pytest.mark.parametrize("kind", ["Failure", "RemoteTraceback", "traceback", "__builtins__", ""])
def test_a_failure_of_a_strange_kind_makes_nothing_but_an_error(kind: str) -> None:
    """Only error classes are looked up, whatever the name says."""
    assert type(Failure(kind, "what", "trace").to_error()) is WorkerFailed


@pytest.mark.parametrize("letter", ["x", "é", "漢", "💥", "\udcff", "\n"])
def test_the_longest_error_fits_into_a_message(letter: str) -> None:
    """In bytes, of letters of any size and of names that are no text; the ends that matter stay."""
    error = SlideError("first words " + letter * 100_000, slide="/data/" + letter * 5_000)
    failure = Failure.of(raised(error))
    for message in (
        StreamFailed(failure),
        WorkerBroke(failure),
        LoadFailed(1, 0, 3, True, failure),
    ):
        assert decode(encode(message)) == message
    assert failure.message.startswith("first words ")
    assert failure.slide.startswith(b"/data/")
    assert type(failure.to_error()) is SlideError


def test_a_long_traceback_keeps_its_end() -> None:
    """There it says what was raised."""
    error = raised(ValueError("x" * 50_000 + " the end"))
    assert Failure.of(error).traceback.endswith("the end\n")


@given(st.text(st.characters(), max_size=50))
def test_a_short_message_arrives_as_it_is(text: str) -> None:
    """Whatever letters are in it."""
    failure = Failure.of(SlideError(text))
    assert failure.message == text.encode(errors="backslashreplace").decode()
    message = decode(encode(StreamFailed(failure)))
    assert message == StreamFailed(failure)


def test_a_timeout_is_caught_as_one_and_as_ours() -> None:
    """So is every error that has a brother among the built-in ones."""
    pairs = {
        "ConfigError": ValueError,
        "MemoryLimitError": ValueError,
        "DatasetError": ValueError,
        "StateError": ValueError,
        "GetTimeout": TimeoutError,
        "EndOfStream": StopIteration,
    }
    for name, brother in pairs.items():
        assert issubclass(getattr(errors, name), brother)
        assert issubclass(getattr(errors, name), ChunkdlError)
    with pytest.raises(TimeoutError, match="too slow"):
        raise GetTimeout("too slow")
