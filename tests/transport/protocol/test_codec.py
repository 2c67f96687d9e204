"""Messages to bytes and back, and everything that is not a message."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tracemalloc
from typing import get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.errors import Failure, OtherVersion, ProtocolError
from chunkdl.sampling.shares import Remainder
from chunkdl.transport.protocol.codec import (
    MAX_LIST,
    MAX_MAP,
    MAX_MESSAGE_BYTES,
    Parts,
    decode,
    decode_consumer,
    decode_service,
    encode,
    encode_consumer,
    encode_parts,
    first_whole,
)
from chunkdl.transport.protocol.engine_messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    AskStatistics,
    BatchReady,
    FillRows,
    GridSurveyed,
    Hello,
    Message,
    Notice,
    Part,
    RowGroup,
    RowsFilled,
    WorkerReady,
)
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Join,
    Position,
    Released,
)
from chunkdl.transport.row_format import ColumnFormat, RowFormat

KINDS: tuple[type[AnyMessage], ...] = get_args(AnyMessage)
WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=200)
FAILURES = st.builds(
    Failure,
    kind=TEXT,
    message=TEXT,
    traceback=TEXT,
    slide=st.binary(max_size=200),
    level=st.none() | WHOLE,
    region=st.none() | st.tuples(WHOLE, WHOLE, WHOLE, WHOLE),
    hook=TEXT,
    patient=TEXT,
    raised=TEXT,
    file=st.binary(max_size=200),
    feature=TEXT,
)
COLUMN_FORMATS = st.builds(
    ColumnFormat, TEXT, TEXT, st.lists(WHOLE, max_size=4).map(tuple), st.booleans()
)
ROW_FORMATS = st.builds(RowFormat, st.lists(COLUMN_FORMATS, max_size=5).map(tuple), st.booleans())
VALUES: dict[object, st.SearchStrategy[object]] = {
    int: WHOLE,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    str: TEXT,
    bytes: st.binary(max_size=200),
    dict[int, int]: st.dictionaries(WHOLE, WHOLE, max_size=20),
    tuple[int, ...]: st.lists(WHOLE, max_size=20).map(tuple),
    dict[int, bytes]: st.dictionaries(WHOLE, st.binary(max_size=40), max_size=20),
    RowFormat: ROW_FORMATS,
    RowFormat | None: st.none() | ROW_FORMATS,
    Failure: FAILURES,
    Failure | None: st.none() | FAILURES,
    tuple[RowGroup, ...]: st.lists(
        st.builds(
            RowGroup,
            WHOLE,
            WHOLE,
            st.binary(max_size=40),
            st.binary(max_size=40),
            attempt=WHOLE,
            first=WHOLE,
        ),
        max_size=5,
    ).map(tuple),
}


def built(kind: type[AnyMessage]) -> st.SearchStrategy[AnyMessage]:
    """Messages of a kind with any content; a field of a new type needs its entry above."""
    fields = {field.name: VALUES[field.type] for field in msgspec.structs.fields(kind)}
    if "version" in fields:
        fields["version"] = st.just(PROTOCOL_VERSION)
    return st.builds(kind, **fields)


def refused(data: bytes) -> None:
    """It is a ProtocolError and nothing else."""
    with pytest.raises(ProtocolError):
        decode(data)


def test_every_message_is_one_that_can_be_decoded() -> None:
    """A message that is missing in `AnyMessage` could be sent, and never be understood."""
    here = {kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__}
    assert set(KINDS) == here


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type[AnyMessage]) -> None:
    """With all of its fields, whatever is in them."""

    @settings(max_examples=15, deadline=None)
    @given(built(kind))
    def comes_back(message: AnyMessage) -> None:
        back = decode(encode(message))
        assert type(back) is kind
        assert back == message

    comes_back()


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(KINDS).flatmap(built), st.data())
def test_a_part_of_a_message_is_no_message(message: AnyMessage, data: st.DataObject) -> None:
    """However much of it is there, nor is one with something behind it."""
    whole = encode(message)
    refused(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(whole + data.draw(st.binary(min_size=1, max_size=3)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_protocol_error(data: bytes) -> None:
    """Whatever a stranger sends, the service knows what to do."""
    refused(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS).flatmap(built), st.data())
def test_a_damaged_message_is_a_message_or_a_protocol_error(
    message: AnyMessage, data: st.DataObject
) -> None:
    """Bytes changed in the middle; nothing else may come of it."""
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode(bytes(damaged)), Message)


PLAIN = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.text(max_size=8), PLAIN, max_size=4), PLAIN)
def test_a_field_of_another_type_is_no_message(
    kind: type[AnyMessage], extra: dict[str, object], value: object
) -> None:
    """Every field of every message is checked; fields that are unknown are not looked at."""
    plain = {"type": kind.__name__, **extra}
    fields = {field.name: value for field in msgspec.structs.fields(kind)}
    try:
        message = decode(msgpack.packb({**plain, **fields}))
    except ProtocolError:
        return
    for field in msgspec.structs.fields(kind):
        msgspec.convert(getattr(message, field.name), field.type, builtin_types=(bytes,))


@pytest.mark.parametrize(
    "plain",
    [
        None,
        7,
        [],
        {},
        {"type": "Nobody"},
        {"type": 7},
        {"type": "AskStatistics", 7: 7},
        {"type": "Notice", "level": "high", "text": ""},
        {"type": "Notice", "level": 20},
        {"type": "Notice", "level": True, "text": ""},
        {"type": "Notice", "level": 20, "text": b"bytes"},
        {"type": "Hello", "version": 1, "token": "text", "plan_hash": "", "credit": 1},
        {"type": "RowsFilled", "batch": 1, "generation": 1, "ordinals": [1.5]},
        {"type": "BatchReady"},
    ],
    ids=repr,
)
def test_messagepack_that_is_no_message_is_refused(plain: object) -> None:
    """Wrong types, missing fields, unknown names."""
    refused(msgpack.packb(plain))


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(msgpack.ExtType(5, b"")),
        msgpack.packb(msgpack.ExtType(5, b"data")),
        msgpack.packb(msgpack.Timestamp(1, 2)),
        msgpack.packb({"type": "Notice", "level": 20, "text": msgpack.ExtType(1, b"x")}),
        b"\xc7\xff\xff" + b"x" * 255,
        b"\xc9\xff\xff\xff\xff\x01",
    ],
)
def test_extension_types_are_refused(data: bytes) -> None:
    """There are none in this protocol, dates included."""
    refused(data)


@pytest.mark.parametrize("key", [b"\x90", b"\x80", b"\xc0", b"\xc2", b"\xcb" + bytes(8)])
def test_keys_that_are_no_text_are_refused(key: bytes) -> None:
    """Lists and maps as well, which Python cannot look up."""
    refused(b"\x81" + key + b"\x01")
    refused(b"\x82\xa4type\xadAskStatistics" + key + b"\x01")


BOMBS = {
    "text that claims 4 GiB": b"\xdb\xff\xff\xff\xff",
    "bytes that claim 4 GiB": b"\xc6\xff\xff\xff\xff",
    "a list that claims 4 Gi items": b"\xdd\xff\xff\xff\xff",
    "a map that claims 4 Gi items": b"\xdf\xff\xff\xff\xff",
    "lists in lists, each of the most items": (b"\xdc" + MAX_LIST.to_bytes(2)) * 20_000,
    "maps in maps, each of the most items": (b"\xde" + MAX_MAP.to_bytes(2) + b"\x01") * 10_000,
    "lists in lists of one": b"\x91" * MAX_MESSAGE_BYTES,
    "maps in maps of one": b"\x81\x01" * (MAX_MESSAGE_BYTES // 2),
    "lists as keys": b"\x81" * MAX_MESSAGE_BYTES,
    "as many empty lists as fit": (b"\xdc" + MAX_LIST.to_bytes(2) + b"\x90" * MAX_LIST) * 60,
    "one byte too many": b"\xc0" * (MAX_MESSAGE_BYTES + 1),
    "64 MiB": bytes(64 * 2**20),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_and_takes_little_memory(bomb: bytes) -> None:
    """What a message claims is bounded before memory is taken for it."""
    tracemalloc.start()
    try:
        refused(bomb)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * 2**20


def test_a_message_that_would_be_too_large_is_not_encoded() -> None:
    """The error names the message; one that just fits is taken on both sides."""
    with pytest.raises(ProtocolError, match=r"Notice of \d+ bytes; at most 65536"):
        encode(Notice(20, "x" * MAX_MESSAGE_BYTES))
    frame = len(encode(Notice(20, "x" * 60_000))) - 60_000
    largest = Notice(20, "x" * (MAX_MESSAGE_BYTES - frame))
    assert len(encode(largest)) == MAX_MESSAGE_BYTES
    assert decode(encode(largest)) == largest


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 300_000), st.integers(0, 40_000))
def test_a_message_of_any_size_comes_back_from_its_parts(
    count_bytes: int, substitutions: int
) -> None:
    """In as many as it takes, each of which is small enough for a channel."""
    for message in (
        GridSurveyed(3, bytes(count_bytes)),
        BatchReady(1, 0, 9, 1, 8, b"", 9, {2**40 + n: 100 for n in range(substitutions)}),
    ):
        data = encode_parts(message)
        assert max(map(len, data)) <= MAX_MESSAGE_BYTES
        parts = Parts()
        assert [parts.take(one) for one in data] == [None] * (len(data) - 1) + [message]
        behind = [*data, encode(AskStatistics())]
        assert first_whole(behind) == (message, len(data))
        assert len(data) == 1 or first_whole(data[:-1]) is None
        assert parts.take(behind[-1]) == AskStatistics()


def test_a_part_that_is_missing_is_noticed() -> None:
    """Half a message is never taken for one; what begins anew is whole again."""
    data = encode_parts(GridSurveyed(3, bytes(200_000)))
    parts = Parts()
    assert parts.take(data[0]) is None
    with pytest.raises(ProtocolError, match="part 2 came after 1 parts"):
        parts.take(data[2])
    assert [parts.take(one) for one in data][-1] == GridSurveyed(3, bytes(200_000))
    with pytest.raises(ProtocolError):
        Parts().take(encode(Part(0, False, b"no message")))


@pytest.mark.parametrize(
    "fields", [{}, {"token": 5}, {"type": "HelloThere"}, {"extra": [[1]]}], ids=str
)
def test_the_version_is_read_before_the_rest(fields: dict[str, object]) -> None:
    """Whatever else another version has in its first message, both versions are named."""
    other = PROTOCOL_VERSION + 1
    data = msgpack.packb({"type": "Hello", "version": other, **fields})
    both = f"speaks protocol {other}, this one {PROTOCOL_VERSION}; install the same"
    with pytest.raises(OtherVersion, match=both):
        decode(data)
    same = msgpack.packb({"type": "Hello", "version": PROTOCOL_VERSION, **fields})
    with pytest.raises(OtherVersion, match=f"speaks protocol {PROTOCOL_VERSION} and does not"):
        decode(same)


def test_the_fullest_messages_of_the_protocol_fit() -> None:
    """4096 open BigChunks of which each was substituted, and a whole batch dropped."""
    substitutions = {2**40 + ordinal: 100 for ordinal in range(4096)}
    fullest = BatchReady(2**40, 0, 9, 2**40, 8192, bytes(4 * 4096), 9, substitutions)
    assert decode(encode(fullest)) == fullest
    rows = FillRows(1, 1, 1, (RowGroup(2**40, 9, bytes(16 * 1024), bytes(16 * 1024)),))
    assert decode(encode(rows)) == rows
    filled = RowsFilled(1, 1, tuple(range(2**40, 2**40 + MAX_LIST)))
    assert decode(encode(filled)) == filled


def test_messages_without_fields_say_who_they_are() -> None:
    """The name of the class is all there is."""
    assert msgpack.unpackb(encode(AskStatistics())) == {"type": "AskStatistics"}
    assert decode(encode(WorkerReady())) == WorkerReady()


def test_bytes_travel_as_bytes_and_not_as_text() -> None:
    """No base64, which would take a third more."""
    hello = Hello(1, bytes(range(16)), "", 1)
    assert msgpack.unpackb(encode(hello))["token"] == bytes(range(16))


FIRST_MESSAGES = """
import sys, threading
from msgspec import MsgspecError, convert
from chunkdl.transport.protocol import codec

sys.setswitchinterval(1e-6)
kinds = {**codec._CLASSES, **codec._SERVICE}.values()
plain = [{name: 1 for name in kind.__struct_fields__} for kind in kinds]
go = False

def read():
    while not go:
        pass
    for one, kind in zip(plain, kinds):
        try:
            convert(one, kind)
        except MsgspecError:
            pass

threads = [threading.Thread(target=read) for _ in range(6)]
for thread in threads:
    thread.start()
go = True
"""


def test_threads_may_read_their_first_messages_at_the_same_time() -> None:
    """The connections of two loaders do. What msgspec learns of a class it has learned before, for
    it breaks when two threads make it do so.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(8):
        subprocess.run([sys.executable, "-c", FIRST_MESSAGES], check=True, env=environment)


def test_a_position_with_many_gaps_comes_back_from_its_frames() -> None:
    """Of a consumer; it may be larger than one frame, and has a limit of its own."""
    gaps = tuple((2**40 + 2 * number, 2**40 + 2 * number + 1) for number in range(4_000))
    position = Position(Remainder(0, gaps, 2**41), 4, {2**40 + n: n for n in range(4_000)})
    join = Join(SERVICE_PROTOCOL_VERSION, "", "", "g", 0, 1, 0, 4, 2**30, "", position, 0, ())
    frames = encode_consumer(join)
    assert len(frames) > 1
    assert max(map(len, frames)) <= MAX_MESSAGE_BYTES
    assert decode_consumer(frames) == join
    with pytest.raises(ProtocolError, match="at most 262144"):
        decode_consumer([frames[0]] * 5)
    with pytest.raises(ProtocolError):
        decode_consumer([*frames, frames[0]])
    with pytest.raises(ProtocolError, match="not only the last is short"):
        decode_consumer([b"", *frames])


def test_what_a_consumer_says_besides_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than one frame, or with longer lists, only a Join is unpacked at all; nor is more
    sent, or another type accepted in its name.
    """
    numbers = tuple(2**60 + number for number in range(10_000))
    with pytest.raises(ProtocolError, match="at most 65536"):
        encode_consumer(Released(numbers))
    pairs = ("type", "Join"), ("x", b"x" * MAX_MESSAGE_BYTES), ("type", "Ping")
    twice = msgpack.Packer().pack_map_pairs(pairs)
    with pytest.raises(ProtocolError, match="a Ping that began as a Join"):
        decode_consumer([twice[:MAX_MESSAGE_BYTES], twice[MAX_MESSAGE_BYTES:]])
    with pytest.raises(ProtocolError):
        decode_consumer([msgpack.packb({"type": "Released", "numbers": list(range(1_025))})])
    monkeypatch.setattr(msgpack, "unpackb", lambda *_, **__: pytest.fail("it was unpacked"))
    for kind in ("Released", "Ping", "Operate", "Attach", "Nothing"):
        large = msgpack.packb({"type": kind, "x": dict.fromkeys(range(20000), 0)})
        with pytest.raises(ProtocolError, match="at most 65536"):
            decode_consumer([large[:MAX_MESSAGE_BYTES], large[MAX_MESSAGE_BYTES:]])


@pytest.mark.parametrize("version", [b"\xa3two", b"\x91" * 1015 + b"\x01", b"\xc0", b"\x90"])
def test_a_version_that_is_not_a_number_is_an_error_of_the_protocol(version: bytes) -> None:
    """Also one that nests so deep that nobody can print it."""
    with pytest.raises(ProtocolError):
        decode_service(b"\x82\xa4type\xa4Join\xa7version" + version)
