"""What every saved state says of itself, whichever loader has saved it.

A state is plain data: ``{"version", "kind", "epoch", "epoch_batches", ...}``, for json, msgpack and
torch.save. The rest differs by kind, because the loaders do not know the same: an embedded engine
knows its batches, a consumer of a service what is left of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from chunkdl.errors import StateError

STATE_VERSION = 2
"""One version for all kinds: increase it when the content of a state changes."""

Kind = Literal["embedded", "service", "services", "machines"]

LOADERS: Mapping[str, str] = {
    "embedded": "LightDL",
    "service": "connect to one service, or LightDL.for_ddp on one machine",
    "services": "connect to several services",
    "machines": "LightDL.for_ddp on several machines",
}
"""Which loaders save which kind."""


def wrapped(
    kind: Kind, content: Mapping[str, Any], *, epoch: int, epoch_batches: int | None
) -> dict[str, Any]:
    """A state of that kind.

    Args:
        kind: of the loader.
        content: what else it holds: numbers, texts, lists, tuples, and dicts by text.
        epoch: number of the pass, from 0; 0 of an endless stream.
        epoch_batches: batches of an epoch of ``batches=n`` that were returned; None: epochs have no
            length of their own.
    """
    head = {"version": STATE_VERSION, "kind": kind, "epoch": epoch, "epoch_batches": epoch_batches}
    return {**head, **{name: _plain(value) for name, value in content.items()}}


def _plain(value: Any) -> Any:
    """With lists for tuples, as every format gives it back."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def unwrapped(state: object, kind: Kind) -> dict[str, Any]:
    """What a state of that kind holds, with "epoch" and "epoch_batches".

    Raises:
        StateError: it is not a state, of another version, or of another kind.
    """
    if not isinstance(state, Mapping):
        raise not_a_state(f"it is a {type(state).__name__}, not a dict")
    if "version" not in state:
        raise not_a_state("it has no 'version'")
    # Before anything else: the fields of another version may be others.
    version = state["version"]
    if type(version) is not int or version != STATE_VERSION:
        raise StateError(
            f"the state has version {version}, but this chunkdl reads version {STATE_VERSION}; "
            "continue with the version of chunkdl that saved it, or start the stream from the "
            "beginning"
        )
    content = dict(state)
    del content["version"]
    if (other := content.pop("kind", None)) != kind:
        if not isinstance(other, str) or other not in LOADERS:
            raise not_a_state(f"its 'kind' is {other!r}")
        raise StateError(
            f"the state is of kind {other!r}, saved by {LOADERS[other]}, but this loader is of "
            f"kind {kind!r} ({LOADERS[kind]}); load the state into a loader of its kind, or start "
            "the stream from the beginning"
        )
    epoch, epoch_batches = content.get("epoch"), content.get("epoch_batches", -1)
    if not _is_count(epoch) or not (epoch_batches is None or _is_count(epoch_batches)):
        raise not_a_state(f"epoch={epoch!r}, epoch_batches={epoch_batches!r}")
    return content


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def not_a_state(why: object) -> StateError:
    """The error of what is not a state at all, or was damaged."""
    return StateError(f"this is not a state of a chunkdl stream: {why}")
