"""Where a consumer of a shared stream stands, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from chunkdl.errors import StateError
from chunkdl.sampling.rules import Rules
from chunkdl.transport.protocol.service_messages import Position

STATE_VERSION = 1


class SharedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a consumer of a shared stream stands: the same for all ranks after the same step."""

    plan_hash: str
    position: Position
    epoch_batches: int | None = None
    """Batches of the present epoch that were returned, where epochs have a length of their own."""
    version: int = STATE_VERSION
    rules: Rules = Rules()
    """By which the service has made the stream."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json, torch.save or msgpack."""
        state: dict[str, Any] = msgspec.to_builtins(self)
        if self.epoch_batches is None:
            del state["epoch_batches"]
        pairs = state["position"]["substitutions"].items()
        # JSON has no integer keys; pairs survive every format.
        state["position"]["substitutions"] = [list(pair) for pair in sorted(pairs)]
        return state


def state_of(state: Mapping[str, Any]) -> SharedState:
    """What `SharedState.to_dict` has given.

    Raises:
        StateError: it is not a state of a shared stream.
    """
    if isinstance(state, Mapping) and "plan_hashes" in state:
        raise StateError(
            f"the state is of {len(state['plan_hashes'])} machines, each with patients of its own, "
            "and here is one service; go on with LightDL.for_ddp on as many machines"
        )
    try:
        fields = {**state, "position": dict(state["position"])}
        pairs = fields["position"]["substitutions"]
        fields["position"]["substitutions"] = dict(pairs)
        found = msgspec.convert(fields, SharedState)
    except (msgspec.ValidationError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise StateError(f"this is not a state of a shared stream: {error}") from error
    if found.version != STATE_VERSION:
        raise StateError(
            f"the state has version {found.version}, this chunkdl reads {STATE_VERSION}"
        )
    if not found.position.left.is_sound():
        raise StateError("this is not a state of a shared stream: a number in it is out of range")
    return found
