"""Where a stream stands: the small plain data from which it goes on exactly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from chunkdl.errors import StateError
from chunkdl.sampling.rules import Rules
from chunkdl.sampling.seeding import MAX_SEED
from chunkdl.sampling.state_envelope import not_a_state, unwrapped, wrapped

_MAPS = ("substitutions", "loads", "openings", "checkpoints", "messages")


class Opening(msgspec.Struct, frozen=True):
    """How a BigChunk was opened: what has to be the same when it is loaded again."""

    attempt: int
    """How often it was replaced before."""
    first: int
    """The call with which this attempt begins."""
    patient: int
    """Index of the patient."""
    message: bytes = b""
    """Pickled, as it was sent; empty for none."""
    checkpoint: bytes = b""
    """Pickled, as the load before has left it; empty for none."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a stream after the last batch that the training loop received."""

    plan_hash: str
    """Identifies dataset, configuration and seed."""
    seed: int
    epoch: int = 0
    """Passes finished, of a finite stream."""
    next_batch: int = 0
    """Batches below this number were all delivered (of the pass, for a grid pass)."""
    ahead: tuple[int, ...] = ()
    """Batches from `next_batch` on that were delivered before their turn (relaxed order)."""
    epoch_batches: int | None = None
    """Batches of the present epoch that were returned, where epochs have a length of their own."""
    smallchunks_per_bigchunk: int = 0
    """n of the rotation; 0 where it was not yet known."""
    substitutions: dict[int, int] = {}
    """Attempt with which a BigChunk that is still in use was read, where it is not the first.
    Without replacement: slides without a position, each with a 0."""
    deterministic: bool = True
    """False where a policy of the user's own, or a message, had a say in what was loaded."""
    loads: dict[int, int] = {}
    """Where a policy chooses: how often each patient was chosen."""
    recent: tuple[int, ...] = ()
    """The patients that were chosen last, oldest first."""
    openings: dict[int, tuple[Opening, ...]] = {}
    """Of each BigChunk that is still in use, how it was opened."""
    checkpoints: dict[int, bytes] = {}
    """Of each patient, pickled."""
    messages: dict[int, bytes] = {}
    """To each patient, pickled, that no load has taken yet."""
    rules: Rules = Rules()
    """By which the stream was made."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json, torch.save or msgpack; see `state_envelope`."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        # JSON has no integer keys; pairs survive every format.
        for name in _MAPS:
            content[name] = [list(pair) for pair in sorted(content[name].items())]
        epoch, epoch_batches = content.pop("epoch"), content.pop("epoch_batches")
        return wrapped("embedded", content, epoch=epoch, epoch_batches=epoch_batches)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], plan_hash: str) -> Cursor:
        """The cursor in `state`, checked to be one of the stream with `plan_hash`.

        Raises:
            StateError: it is not a state, of another version, of another kind of loader, of other
                rules, or of another stream.
        """
        content = unwrapped(state, "embedded")
        try:
            fields = {**content, **{name: dict(content[name]) for name in _MAPS}}
            cursor = msgspec.convert(fields, cls)
        except KeyError as error:
            raise not_a_state(f"it has no {error}") from error
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise not_a_state(error) from error
        if not cursor._is_sound():
            raise not_a_state(
                f"a number in it is out of range, or ahead={list(cursor.ahead)} is not ascending, "
                f"or does not begin after {cursor.next_batch}"
            )
        Rules().check(cursor.rules)
        if cursor.plan_hash != plan_hash:
            raise StateError(
                "the state belongs to another stream: dataset, seed, sizes, resolution, tissue "
                "settings, reuse, num_bigchunks or batch_size differ from those of the saved "
                "stream, or other slides were left out"
            )
        return cursor

    def _is_sound(self) -> bool:
        """Whether the numbers can be those of a stream."""
        maps = (self.substitutions, self.loads)
        pairs = [number for pairs in maps for pair in pairs.items() for number in pair]
        pairs += [*self.recent, *self.openings, *self.checkpoints, *self.messages]
        for openings in self.openings.values():
            pairs += [n for one in openings for n in (one.attempt, one.first, one.patient)]
        return (
            0 <= self.seed <= MAX_SEED
            and min(self.next_batch, self.smallchunks_per_bigchunk, *pairs) >= 0
            and all(a < b for a, b in pairwise((self.next_batch, *self.ahead)))
        )

    def delivered(self, batch: int) -> Cursor:
        """The cursor after `batch` was delivered too."""
        ahead = {*self.ahead, batch}
        next_batch = self.next_batch
        while next_batch in ahead:
            ahead.remove(next_batch)
            next_batch += 1
        return msgspec.structs.replace(self, next_batch=next_batch, ahead=tuple(sorted(ahead)))
