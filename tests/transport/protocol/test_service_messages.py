"""Messages between a service and its consumers: to bytes and back, and what is none."""

from __future__ import annotations

import contextlib
from typing import get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.dataset.labels import Label
from chunkdl.errors import ProtocolError
from chunkdl.sampling.rules import Rules
from chunkdl.sampling.shares import Remainder
from chunkdl.transport.protocol import engine_messages as messages
from chunkdl.transport.protocol import service_messages
from chunkdl.transport.protocol.codec import decode, decode_service, encode
from chunkdl.transport.protocol.engine_messages import AnyMessage, Message
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Joined,
    Leave,
    Position,
    Released,
    ServiceMessage,
)
from chunkdl.transport.row_format import RowFormat
from tests.transport.protocol.test_codec import TEXT, VALUES, WHOLE

KINDS: tuple[type[ServiceMessage], ...] = get_args(ServiceMessage)
ROWS = st.tuples(WHOLE, WHOLE)
POSITIONS = st.builds(
    Position,
    st.builds(Remainder, WHOLE, st.lists(ROWS, max_size=5).map(tuple), WHOLE),
    WHOLE,
    st.dictionaries(WHOLE, WHOLE, max_size=5),
)
PIECES = st.builds(service_messages.Piece, WHOLE, WHOLE, WHOLE, st.binary(max_size=40))
SCALARS = WHOLE | st.floats(allow_nan=False) | TEXT | st.booleans() | st.none()
LABELS = st.dictionaries(TEXT, SCALARS | st.lists(SCALARS, max_size=3).map(tuple), max_size=3)
FIELDS: dict[object, st.SearchStrategy[object]] = {
    **VALUES,
    Position: POSITIONS,
    Position | None: st.none() | POSITIONS,
    tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
    Rules: st.builds(Rules, WHOLE, WHOLE),
    tuple[service_messages.Piece, ...]: st.lists(PIECES, max_size=5).map(tuple),
    tuple[tuple[int, bytes, dict[str, Label]], ...]: st.lists(
        st.tuples(WHOLE, st.binary(max_size=200), LABELS), max_size=3
    ).map(tuple),
    tuple[tuple[bytes, dict[str, Label]], ...]: st.lists(
        st.tuples(st.binary(max_size=200), LABELS), max_size=3
    ).map(tuple),
}


def built(kind: type[ServiceMessage]) -> st.SearchStrategy[ServiceMessage]:
    """Messages of a kind with any content; a field of a new type needs its entry above."""
    fields = {field.name: FIELDS[field.type] for field in msgspec.structs.fields(kind)}
    if "version" in fields:
        fields["version"] = st.just(SERVICE_PROTOCOL_VERSION)
    return st.builds(kind, **fields)


def test_every_message_is_in_one_of_the_two_protocols() -> None:
    """A message that is missing there could be sent, and never be understood."""
    assert set(KINDS) | set(get_args(AnyMessage)) == set(Message.__subclasses__())
    own = {
        kind for kind in Message.__subclasses__() if kind.__module__ == service_messages.__name__
    }
    shared = {messages.Notice, messages.Ping, messages.Pong, messages.Refuse, messages.Statistics}
    assert set(KINDS) - own == shared


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_comes_back_as_it_was(kind: type[ServiceMessage]) -> None:
    """With all of its fields, whatever is in them."""

    @settings(max_examples=10, deadline=None)
    @given(built(kind))
    def comes_back(message: ServiceMessage) -> None:
        back = decode_service(encode(message))
        assert type(back) is kind
        assert back == message

    comes_back()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS).flatmap(built), st.data())
def test_a_damaged_message_is_a_message_or_a_protocol_error(
    message: ServiceMessage, data: st.DataObject
) -> None:
    """Bytes changed, cut off or added; nothing else may come of it."""
    whole = bytearray(encode(message))
    place = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ProtocolError):
        decode_service(bytes(whole[:place]))
    with pytest.raises(ProtocolError):
        decode_service(bytes(whole) + b"\xc0")
    whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_service(bytes(whole)), Message)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_error(data: bytes) -> None:
    """Whatever a stranger sends."""
    with pytest.raises(ProtocolError):
        decode_service(data)


def test_the_protocols_do_not_take_each_others_messages() -> None:
    """A consumer cannot speak to an engine, nor a worker to a service."""
    with pytest.raises(ProtocolError):
        decode(encode(Leave(0, 0)))
    with pytest.raises(ProtocolError):
        decode_service(encode(messages.WorkerReady()))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(KINDS), st.none() | st.booleans() | st.floats() | st.just([[1]]))
def test_a_field_of_another_type_is_no_message(kind: type[ServiceMessage], value: object) -> None:
    """Every field of every message is checked."""
    fields = {field.name: value for field in msgspec.structs.fields(kind)}
    try:
        message = decode_service(msgpack.packb({"type": kind.__name__, **fields}))
    except ProtocolError:
        return
    for field in msgspec.structs.fields(kind):
        msgspec.convert(getattr(message, field.name), field.type, builtin_types=(bytes,))


def test_the_fullest_messages_fit() -> None:
    """As many releases as are said at once, and a position with a thousand gaps."""
    released = Released(tuple(range(2**40, 2**40 + 500)))
    assert decode_service(encode(released)) == released
    left = Remainder(1, tuple((2**40 + 2 * n, 2**40 + 2 * n + 1) for n in range(1000)), 2**41)
    at = Position(left, 9, {2**40 + n: 9 for n in range(300)})
    crops = RowFormat.of_crops(9)
    joined = Joined("n" * 32, True, "shard", "f" * 64, 1, 9, 9, crops, 9, 9, at, 1, at, 9, 5.0)
    assert decode_service(encode(joined)) == joined
