"""Who is at the other end of a connection, and what that allows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chunkdl.errors import ProtocolError
from chunkdl.transport.protocol.service_messages import Operate

READS = ("status",)
"""Wishes that change nothing; every visitor has them."""
OPERATORS = "operators"
"""The folder inside that of the allowed clients whose keys are operators'."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who it is by the word of the kernel, or by the key that CURVE has proved.

    Nothing in it is what the visitor says of itself.

    Attributes:
        name: for people, such as "process 31 of user 1000" or "the key alice.key, at 10.0.0.5".
        is_operator: it may steer the service and take ranks that others hold.
        key: that it has proved, in Z85 text; empty: it needed none.
    """

    name: str
    is_operator: bool
    key: str = ""


SOMEBODY = Visitor("somebody", is_operator=False)
"""Of whom nothing is known."""


def check_wish(wish: Operate, who: Visitor, groups: Iterable[str]) -> None:
    """Refuse what no operator can have, and what only operators can.

    Raises:
        ProtocolError: and why.
    """
    if wish.group and wish.group not in groups:
        raise ProtocolError(f"there is no group {wish.group[:64]!r}; there are {', '.join(groups)}")
    if wish.verb not in (*READS, "pause", "resume", "drain"):
        raise ProtocolError("there are status, pause, resume and drain")
    if wish.verb not in READS and not who.is_operator:
        raise ProtocolError(f"{wish.verb} is for operators, and {how_to_operate(who)}")


def check_same(who: Visitor, before: Visitor) -> None:
    """Refuse a session to who comes back with another key than it was opened with.

    Raises:
        ProtocolError: the key is another.
    """
    if who.key != before.key:
        raise ProtocolError(
            f"the session belongs to {before.name} and not to {who.name}; open one of your own"
        )


def how_to_operate(who: Visitor) -> str:
    """What somebody may do who is not an operator, to have done what operators do."""
    return (
        f"{who.name} is a consumer's: have the key moved into the folder {OPERATORS!r} of the "
        "allowed clients and the service started again, use a key that is there, or ask by the "
        "ipc address on the machine of the service"
    )
