"""Where a consumer of a shared stream stands, as plain data and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from chunkdl.sampling.rules import Rules
from chunkdl.sampling.state_envelope import not_a_state, unwrapped, wrapped
from chunkdl.transport.protocol.service_messages import Position


class SharedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a consumer of a shared stream stands: the same for all ranks after the same step."""

    rows_hash: str
    """Identity of the rows, however they are cut into batches."""
    position: Position
    epoch_batches: int | None = None
    """Batches of the present epoch that were returned, where epochs have a length of their own."""
    rules: Rules = Rules()
    """By which the service has made the stream."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json, torch.save or msgpack; see `state_envelope`."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        position = content["position"]
        # JSON has no integer keys; pairs survive every format.
        position["substitutions"] = [
            list(pair) for pair in sorted(position["substitutions"].items())
        ]
        epoch, epoch_batches = position["left"].pop("epoch"), content.pop("epoch_batches")
        return wrapped("service", content, epoch=epoch, epoch_batches=epoch_batches)


def state_of(state: Mapping[str, Any]) -> SharedState:
    """What `SharedState.to_dict` has given.

    Raises:
        StateError: it is not a state, of another version, or of another kind of loader.
    """
    content = unwrapped(state, "service")
    try:
        position = dict(content["position"])
        position["left"] = {**position["left"], "epoch": content.pop("epoch")}
        position["substitutions"] = dict(position["substitutions"])
        found = msgspec.convert({**content, "position": position}, SharedState)
    except KeyError as error:
        raise not_a_state(f"it lacks {error}") from error
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise not_a_state(error) from error
    learned = found.position
    numbers = [n for pair in learned.substitutions.items() for n in pair]
    if not learned.left.is_sound() or min(*numbers, learned.smallchunks_per_bigchunk, 0) < 0:
        raise not_a_state("a number in it is out of range")
    return found
