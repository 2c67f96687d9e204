"""Groups whose members wait for batches that do not come: the cause and the remedy. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.members import Seat
from chunkdl.service.decisions.sessions import OVER, Session
from chunkdl.transport.protocol.session_states import State

PATIENCE_S = 10.0
"""After so long without a batch for somebody who wants one it is said why."""
MOST_NAMED = 8
"""Ranks in a line."""


@dataclass(slots=True)
class _Watched:
    """When a group got its last batch, as far as was seen, and what was said of it since."""

    delivered: int = -1
    since_s: float = 0.0
    told: str = ""


class Waiting:
    """What was said of each group that waits.

    Args:
        groups: by name.
        troubles: what went wrong last in the engines of a group.
    """

    def __init__(
        self, groups: Mapping[str, Group], troubles: Callable[[str], Sequence[str]]
    ) -> None:
        self._groups = groups
        self._troubles = troubles
        self._watched = {name: _Watched() for name in groups}

    def reason(self, group: str) -> str:
        """Why a group waits, for people; empty: it does not."""
        return self._watched[group].told

    def look(self, sessions: Iterable[Session], paused: Iterable[str], now_s: float) -> list[str]:
        """See who waits; the groups of which there is news.

        Args:
            sessions: all of them.
            paused: groups that an operator has paused.
            now_s: time, seconds.
        """
        news = []
        present, held_up = [one for one in sessions if one.state not in OVER], set(paused)
        for name, group in self._groups.items():
            watched = self._watched[name]
            members = [one for one in present if one.group == name]
            waits = members and (name in held_up or any(_wants(group, one) for one in members))
            if not waits or group.delivered != watched.delivered:
                watched.delivered, watched.since_s = group.delivered, now_s
                told = ""
            elif now_s - watched.since_s < PATIENCE_S:
                continue
            else:
                told = why(group, members, self._troubles(name), paused=name in held_up)
            if told != watched.told:
                watched.told = told
                if members:
                    news.append(name)
        return news


def _wants(group: Group, session: Session) -> bool:
    """Whether a member could be sent a batch, if there were one."""
    member = group.members[session.name]
    return member.flows and member.credit.available > 0 and not member.seat.ended


def why(group: Group, members: Iterable[Session], troubles: Sequence[str], *, paused: bool) -> str:
    """Why nobody of a group gets a batch, and what to do about it."""
    if paused:
        return "an operator has paused it; `chunkdl ctl ADDRESS resume` lets it go on"
    if not group.is_full:
        last = f"; the last trouble: {troubles[-1]}" if troubles else ""
        return (
            "its engine has not made the next batch: it is starting, looks for tissue in slides "
            f"that it meets for the first time, or its storage is slow{last}"
        )
    absent = group.absent
    if absent:
        return (
            f"{_ranks(seat.share.rank for seat in absent)} of {absent[0].share.world_size} "
            f"{_came(absent)}, and the rows that wait for that fill the memory; start what is "
            "missing, or begin all ranks anew, from a state, with another world_size"
        )
    busy = [one for one in members if not _wants(group, one)]
    lost = [one.join.rank for one in busy if one.state is State.SUSPECT]
    if lost:
        return (
            f"{_ranks(lost)} said nothing for a while, and the others wait for it; is it stopped, "
            "or its network cut? After grace_s its place is free for another"
        )
    resting = [one.join.rank for one in busy if one.paused]
    if resting:
        return f"{_ranks(resting)} paused itself, and the others wait; loader.resume() goes on"
    if group.facts.broadcast:
        return (
            "its slowest member gives no batch back, and the others are as far ahead as "
            'max_lag_batches allows; laggard = "detach" would send it away'
        )
    return (
        f"{_ranks(one.join.rank for one in busy)} has all batches that it may have and gives none "
        "back: it does something else, or keeps them; the others wait for it"
    )


def _came(absent: list[Seat]) -> str:
    came = {seat.came for seat in absent}
    return "never came, or left" if len(came) > 1 else "left" if came == {True} else "never came"


def _ranks(numbers: Iterable[int]) -> str:
    """Some ranks, for people."""
    every = sorted(set(numbers))
    shown = ", ".join(map(str, every[:MOST_NAMED]))
    more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return f"rank{'s' if len(every) > 1 else ''} {shown}{more}"
