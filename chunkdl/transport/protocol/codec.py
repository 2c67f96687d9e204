"""Messages to bytes and back. Whatever comes in is bounded first and typed second.

msgpack unpacks with its limits on, so a small hostile message cannot claim large memory; a version
in it is looked at before anything else, since the fields of another version may be others; msgspec
then checks every field against the message's type before anyone looks at it.

A message that is too large for one is sent in parts: between processes of one service as `Part`
messages, which `Parts` puts together; between a service and a consumer as several frames. Of what a
consumer says only a `Join` may be so large, for the position that it may have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any, get_args

import msgpack
import msgspec

from chunkdl.errors import OtherVersion, ProtocolError
from chunkdl.transport.protocol.engine_messages import PROTOCOL_VERSION, AnyMessage, Message, Part
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Join,
    ServiceMessage,
)

MAX_MESSAGE_BYTES = 64 * 1024
"""Of one piece on its way, by a channel or by ZeroMQ: the kernel takes it whole, and nobody takes
more memory for what somebody else says."""
MAX_LIST = 1024
"""Items of any list in a message; the memory is taken as soon as a list claims them."""
MAX_MAP = 16384
"""Items of any map in a message."""
PART_BYTES = 60 * 1024
"""Of a large message in one part."""
MAX_WHOLE_BYTES = 2**30
"""Of a message between the processes of a service, in as many parts as it takes."""
MAX_CONSUMER_BYTES = 256 * 1024
"""Of a `Join`, in as many frames as it takes: a position with many gaps."""
MAX_SERVICE_BYTES = 16 * 2**20
"""The same, of what a service says."""

_ENCODER = msgspec.msgpack.Encoder()
_TYPE_JOIN = b"".join(map(_ENCODER.encode, ("type", "Join")))
_CLASSES: dict[object, type[AnyMessage]] = {kind.__name__: kind for kind in get_args(AnyMessage)}
_SERVICE: dict[object, type[ServiceMessage]] = {
    kind.__name__: kind for kind in get_args(ServiceMessage)
}
# msgspec learns a class when it first reads one, and two threads that make it learn the same class
# at a time end the process. So it learns them here.
for _kind in {**_CLASSES, **_SERVICE}.values():
    msgspec.msgpack.Decoder(_kind)


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        ProtocolError: it is larger than a message may be, or has a number or a text that cannot
            be written.
    """
    return _encode(message, MAX_MESSAGE_BYTES)


def encode_parts(message: Message) -> list[bytes]:
    """The bytes of a message between the processes of a service: its own, or those of its parts."""
    data = _encode(message, MAX_WHOLE_BYTES)
    if len(data) <= MAX_MESSAGE_BYTES:
        return [data]
    starts = range(0, len(data), PART_BYTES)
    return [
        _ENCODER.encode(Part(number, start + PART_BYTES < len(data), data[start:][:PART_BYTES]))
        for number, start in zip(count(), starts, strict=False)
    ]


def encode_frames(message: Message) -> list[bytes]:
    """The bytes of what a service says, in frames that are small enough."""
    return _framed(_encode(message, MAX_SERVICE_BYTES))


def encode_consumer(message: Message) -> list[bytes]:
    """The same of what a consumer or operator says."""
    most_bytes = MAX_CONSUMER_BYTES if isinstance(message, Join) else MAX_MESSAGE_BYTES
    return _framed(_encode(message, most_bytes))


def _framed(data: bytes) -> list[bytes]:
    return [data[at : at + MAX_MESSAGE_BYTES] for at in range(0, len(data), MAX_MESSAGE_BYTES)]


def _encode(message: Message, most_bytes: int) -> bytes:
    try:
        data = _ENCODER.encode(message)
    except (OverflowError, ValueError) as error:
        raise ProtocolError(f"a {type(message).__name__} that has no bytes: {error}") from error
    if len(data) > most_bytes:
        raise ProtocolError(
            f"a {type(message).__name__} of {len(data)} bytes; at most {most_bytes}"
        )
    return data


def decode(data: bytes) -> AnyMessage:
    """The message between the processes of a service in `data`.

    Raises:
        OtherVersion: it is of another version of the protocol.
        ProtocolError: it is too large, no MessagePack, or no message of this protocol.
    """
    message: AnyMessage = _decode(data, _CLASSES, PROTOCOL_VERSION, MAX_MESSAGE_BYTES)
    return message


def decode_service(data: bytes) -> ServiceMessage:
    """The message between a service and a consumer in one frame; raises as `decode`."""
    version = SERVICE_PROTOCOL_VERSION
    message: ServiceMessage = _decode(data, _SERVICE, version, MAX_MESSAGE_BYTES)
    return message


def decode_frames(frames: Iterable[bytes]) -> ServiceMessage:
    """The message of a service in these frames; raises as `decode`."""
    data, version = b"".join(frames), SERVICE_PROTOCOL_VERSION
    message: ServiceMessage = _decode(data, _SERVICE, version, MAX_SERVICE_BYTES)
    return message


def decode_consumer(frames: Sequence[bytes]) -> ServiceMessage:
    """The message of a consumer or operator in these frames; raises as `decode`."""
    size, version = sum(map(len, frames)), SERVICE_PROTOCOL_VERSION
    if any(len(frame) != MAX_MESSAGE_BYTES for frame in frames[:-1]):
        raise ProtocolError("a message of several frames, of which not only the last is short")
    # Looked at first: until a message is decoded nothing else is heard.
    most_bytes = MAX_CONSUMER_BYTES if _says_join(frames) else MAX_MESSAGE_BYTES
    if size > most_bytes:
        raise ProtocolError(f"a message of {size} bytes; at most {most_bytes}")
    message: ServiceMessage = _decode(b"".join(frames), _SERVICE, version, most_bytes)
    if size > MAX_MESSAGE_BYTES and not isinstance(message, Join):
        raise ProtocolError(f"a {type(message).__name__} that began as a Join")
    return message


def _says_join(frames: Sequence[bytes]) -> bool:
    """Whether a message begins with this type, as msgspec writes it, behind the size of the map."""
    first = frames[0] if frames else b""
    return _TYPE_JOIN in (first[1:][: len(_TYPE_JOIN)], first[3:][: len(_TYPE_JOIN)])


class Parts:
    """The messages of one channel, of which some come in parts."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> AnyMessage | None:
        """The message in what has come; None: it is a part, and more are to come.

        Raises:
            ProtocolError: as `decode`, or a part is missing.
        """
        message = decode(data)
        if not isinstance(message, Part):
            return message
        if message.number == 0:
            self._data, self._size = [], 0
        if message.number != len(self._data):
            raise ProtocolError(f"part {message.number} came after {len(self._data)} parts")
        self._data.append(message.data)
        self._size += len(message.data)
        if self._size > MAX_WHOLE_BYTES:
            raise ProtocolError(f"a message of more than {MAX_WHOLE_BYTES} bytes in parts")
        if message.more:
            return None
        whole, self._data, self._size = b"".join(self._data), [], 0
        together: AnyMessage = _decode(whole, _CLASSES, PROTOCOL_VERSION, MAX_WHOLE_BYTES)
        return together


def first_whole(arrived: Iterable[bytes]) -> tuple[AnyMessage, int] | None:
    """The first message in what has arrived and how many pieces it is; None: not all is here."""
    parts = Parts()
    for number, data in enumerate(arrived, 1):
        if (message := parts.take(data)) is not None:
            return message, number
    return None


def _decode(data: bytes, classes: Mapping[object, Any], version: int, most_bytes: int) -> Any:
    if len(data) > most_bytes:
        raise ProtocolError(f"a message of {len(data)} bytes; at most {most_bytes}")
    try:
        plain = msgpack.unpackb(
            data,
            strict_map_key=False,
            max_str_len=most_bytes,
            max_bin_len=most_bytes,
            # A large one says where many batches lie.
            max_array_len=MAX_LIST * (4 if most_bytes > MAX_MESSAGE_BYTES else 1),
            # Of a large one nothing is taken before it is there.
            max_map_len=max(MAX_MAP, len(data) if len(data) > MAX_MESSAGE_BYTES else 0),
            max_ext_len=0,
            ext_hook=_no_extension,
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a message of this protocol: {error}") from error
    other = plain.get("version", version) if isinstance(plain, dict) else version
    if other != version:
        # What nests without end cannot be written.
        named = str(other)[:20] if isinstance(other, int | str) else "without a number"
        raise OtherVersion(
            f"the other side speaks protocol {named}, this one {version}; install the "
            "same chunkdl on both"
        )
    try:
        # The class by its tag: converting to the union of all would look at them all each time.
        return msgspec.convert(plain, classes[plain["type"]], builtin_types=(bytes,))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(plain, dict) and "version" in plain:
            raise OtherVersion(
                f"this side speaks protocol {version} and does not understand the other, which "
                f"says that it does so too: {error}; install the same chunkdl on both"
            ) from error
        raise ProtocolError(f"not a message of this protocol: {error}") from error


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")
