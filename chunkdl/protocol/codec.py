"""Messages to bytes and back. Whatever comes in is bounded first and typed second.

msgpack unpacks with its limits on, so a small hostile message cannot claim large memory; msgspec
then checks every field against the message's type before anyone looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgpack
import msgspec

from chunkdl.errors import ProtocolError
from chunkdl.protocol.messages import AnyMessage, Message
from chunkdl.protocol.service_messages import ServiceMessage

MAX_MESSAGE_BYTES = 64 * 1024
MAX_LIST = 1024
"""Items of any list in a message; the memory is taken as soon as a list claims them."""
MAX_MAP = 16384
"""Items of any map in a message."""

_ENCODER = msgspec.msgpack.Encoder()
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
    try:
        data = _ENCODER.encode(message)
    except (OverflowError, ValueError) as error:
        raise ProtocolError(f"a {type(message).__name__} that has no bytes: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"a {type(message).__name__} of {len(data)} bytes; at most {MAX_MESSAGE_BYTES}"
        )
    return data


def decode(data: bytes) -> AnyMessage:
    """The message between the processes of a service in `data`.

    Raises:
        ProtocolError: it is too large, no MessagePack, or no message of this protocol.
    """
    message: AnyMessage = _decode(data, _CLASSES)
    return message


def decode_service(data: bytes) -> ServiceMessage:
    """The message between a service and a consumer in `data`; raises as `decode`."""
    message: ServiceMessage = _decode(data, _SERVICE)
    return message


def _decode(data: bytes, classes: Mapping[object, Any]) -> Any:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(data)} bytes; at most {MAX_MESSAGE_BYTES}")
    try:
        plain = msgpack.unpackb(
            data,
            strict_map_key=False,
            max_str_len=MAX_MESSAGE_BYTES,
            max_bin_len=MAX_MESSAGE_BYTES,
            max_array_len=MAX_LIST,
            max_map_len=MAX_MAP,
            max_ext_len=0,
            ext_hook=_no_extension,
        )
        # The class by its tag: converting to the union of all would look at them all each time.
        return msgspec.convert(plain, classes[plain["type"]], builtin_types=(bytes,))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ProtocolError(f"not a message of this protocol: {error}") from error


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")
