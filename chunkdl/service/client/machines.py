"""The state of one stream that the services of several machines serve, each its own patients.

Every rank gets as many rows in a step, on whatever machine, so what is left of the rows is the same
everywhere. What differs is known of each machine by the others: the plan of its stream, and what
its service has learned of its slides. So the state of any rank holds that of all machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chunkdl.errors import StateError
from chunkdl.sampling.rules import Rules
from chunkdl.sampling.shares import Remainder, Share
from chunkdl.sampling.state_envelope import not_a_state, unwrapped, wrapped
from chunkdl.transport.protocol.service_messages import Position

MOST_REMEMBERED = 256
"""Changes of what a machine has learned; a state may be asked for that long afterwards."""


class Learned(msgspec.Struct, frozen=True):
    """What a service knows of its slides, from some row on.

    Attributes:
        epoch, rows: from where on: so many rows of that pass had been dealt out.
        smallchunks_per_bigchunk, substitutions: see `Position`; pairs, for JSON.
    """

    epoch: int = 0
    rows: int = 0
    smallchunks_per_bigchunk: int = 0
    substitutions: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, position: Position) -> Learned:
        """What a position says."""
        return cls(
            position.left.epoch,
            dealt(position.left),
            position.smallchunks_per_bigchunk,
            tuple(sorted(position.substitutions.items())),
        )

    def says_the_same(self, other: Learned) -> bool:
        """Whether nothing was learned in between."""
        return (self.smallchunks_per_bigchunk, self.substitutions) == (
            other.smallchunks_per_bigchunk,
            other.substitutions,
        )


class MachinesState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a stream of several machines stands; the same for all ranks after the same step.

    Attributes:
        rows_hashes: identity of the rows of each machine.
        left: what is left of each.
        learned: by each service, before that.
        epoch_batches: batches of the present epoch that a rank has returned, where epochs have a
            length of their own.
    """

    rows_hashes: tuple[str, ...]
    left: Remainder
    learned: tuple[Learned, ...]
    epoch_batches: int | None = None
    rules: Rules = Rules()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for json, torch.save or msgpack; see `state_envelope`."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        epoch, epoch_batches = content["left"].pop("epoch"), content.pop("epoch_batches")
        return wrapped("machines", content, epoch=epoch, epoch_batches=epoch_batches)

    def position(self, node: int) -> Position:
        """Where the stream of a machine stands."""
        learned = self.learned[node]
        return Position(self.left, learned.smallchunks_per_bigchunk, dict(learned.substitutions))


def dealt(left: Remainder) -> int:
    """How many rows of a pass were dealt out."""
    return left.tail - left.before_tail


def after_whole_steps(left: Remainder, start: Remainder, step_rows: int) -> Remainder:
    """What is left on every machine when the last step of one may have been a short one.

    Args:
        left: of a machine that has taken some steps.
        start: of all machines, before the first of these steps.
        step_rows: rows of a step.
    """
    steps = -(-(dealt(left) - dealt(start)) // step_rows)
    return Share(0, 1, step_rows).after(start, steps, None)


def last_before(history: Sequence[Learned], left: Remainder) -> Learned:
    """What a machine had learned when its rows were dealt out so far; nothing, where unknown.

    Raises:
        StateError: too much has been learned since.
    """
    here = left.epoch, dealt(left)
    before = [learned for learned in history if (learned.epoch, learned.rows) <= here]
    if not before and len(history) == MOST_REMEMBERED:
        raise StateError(
            "the state of a batch from long ago is not known any more on the other machines; save "
            "it sooner"
        )
    return before[-1] if before else Learned()


def read_state(state: Mapping[str, Any], rows_hashes: tuple[str, ...]) -> MachinesState:
    """The state, checked to be one of these machines.

    Raises:
        StateError: it is none, of other machines, or of another stream.
    """
    content = unwrapped(state, "machines")
    try:
        left = {**content["left"], "epoch": content.pop("epoch")}
        found = msgspec.convert({**content, "left": left}, MachinesState)
    except KeyError as error:
        raise not_a_state(f"it lacks {error}") from error
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise not_a_state(error) from error
    Rules().check(found.rules)
    if len(found.rows_hashes) != len(rows_hashes):
        raise StateError(
            f"the state is of {len(found.rows_hashes)} machines, and here are {len(rows_hashes)}; "
            "each has its own share of the patients, so go on with as many. The number of ranks "
            "on each may be another"
        )
    if found.rows_hashes != rows_hashes:
        raise StateError(
            "the state belongs to another stream: dataset, seed, sizes, resolution, tissue "
            "settings, reuse or num_bigchunks of the service differ"
        )
    numbers = [n for learned in found.learned for pair in learned.substitutions for n in pair]
    numbers += [learned.smallchunks_per_bigchunk for learned in found.learned]
    if (
        not found.left.is_sound()
        or len(found.learned) != len(rows_hashes)
        or min(numbers, default=0) < 0
    ):
        raise not_a_state("a number in it is out of range")
    return found
