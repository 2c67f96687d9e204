"""A group that waits says why and what to do, once; who waits is told, and so is an operator."""

from __future__ import annotations

import dataclasses
import json

import pytest

from chunkdl.service.decisions.actions import Deliver, Note, Peer, Say
from chunkdl.service.decisions.desk import Desk
from chunkdl.service.decisions.group import Group
from chunkdl.service.decisions.waiting import PATIENCE_S
from chunkdl.transport.protocol.engine_messages import BatchReady, Ping
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    CataloguePage,
    Leave,
    Operate,
    OperatorAnswer,
    Pause,
    Position,
    Released,
    Waits,
)
from tests.service.decisions.group_script import GROUP, SILENT_S, Setting
from tests.service.decisions.test_desk import PEER, Counter

MOST_BATCHES = 4
"""Of the engine, that there is memory for."""


class Service(Counter):
    """A desk over little memory, and members that give back at once or keep what they have."""

    def __init__(self, *, broadcast: bool = False) -> None:
        super().__init__(Setting(max_consumers=4, broadcast=broadcast))
        facts = self.setting.group_facts()
        most = MOST_BATCHES * self.setting.batch_rows
        self.group = Group(dataclasses.replace(facts, most_rows=most), Position())
        names = iter(f"name {number}" for number in range(1000))
        self.desk = Desk(
            self.setting.desk_facts(),
            {GROUP: self.group},
            lambda: next(names),
            lambda patient, slide: CataloguePage(patient, (), slide, ()),
            troubles=lambda _: ["slide left out: a.tif"],
        )
        self.made = 0
        self.lines: list[str] = []
        """Of the log, about waiting."""
        self.told: dict[Peer, list[str]] = {}

    def fill(self, *alive: Peer, keeps: tuple[str, ...] = ()) -> None:
        """The engine makes batches until its memory is full."""
        rows = self.setting.batch_rows
        for _ in range(12):
            if not self.group.is_full:
                self.group.batch(1, BatchReady(self.made, 0, self.made, 1, rows, b"", 9, {}))
                self.made += 1
            self.wait(SILENT_S / 4, *alive, keeps=keeps)

    def wait(self, seconds: float, *alive: Peer, keeps: tuple[str, ...] = ()) -> None:
        """So long goes by, in which these say that they are there, and give back what they get."""
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += SILENT_S / 4
            for peer in alive:
                self.desk.handle(peer, Ping(), self.now_s)
            self.tick(self.now_s)
            while actions := self.actions:
                for action in actions:
                    if isinstance(action, Note) and "group train waits" in action.text:
                        self.lines.append(action.text)
                    if isinstance(action, Say) and isinstance(action.message, Waits):
                        self.told.setdefault(action.peer, []).append(action.message.reason)
                    if isinstance(action, Deliver) and action.session not in keeps:
                        peer = self.desk.sessions[action.session].peer
                        back = Released((action.message.number,))
                        self.desk.handle(peer, back, self.now_s)
                self.actions = self.desk.take()

    def status(self) -> dict[str, object]:
        """Of the group, as an operator sees it."""
        (answer,) = self.say(PEER, Operate(SERVICE_PROTOCOL_VERSION, "", "status", ""))
        assert isinstance(answer, OperatorAnswer)
        return dict(json.loads(answer.status)["groups"][GROUP])


def waiting(service: Service, words: str, *who: Peer) -> None:
    """The group waits for that reason, which was said once, to all who are to know."""
    assert len(service.lines) == 1, service.lines
    assert words in service.lines[0]
    reason = service.status()["waits"]
    assert isinstance(reason, str)
    assert words in reason
    for peer in who:
        assert service.told[peer] == [reason]


def test_a_rank_that_never_came_is_told() -> None:
    """With the rank, and what to do; when it comes, that is told as well."""
    service = Service()
    first, _ = service.joined(0, world_size=3)
    service.wait(PATIENCE_S - 1, first)
    assert service.status()["waits"] is None
    service.fill(first)
    service.wait(3 * PATIENCE_S, first)
    waiting(service, "ranks 1, 2 of 3 never came", first)
    assert "start what is missing" in service.lines[0]

    others = [service.joined(number, rank=number, world_size=3)[0] for number in (1, 2)]
    service.wait(2.0, first, *others)
    assert service.status()["waits"] is None
    assert service.told[first][-1] == ""


def test_a_rank_that_left_is_told() -> None:
    """It is another thing than one that never came."""
    service = Service()
    first, _ = service.joined(0, world_size=2)
    second, _ = service.joined(1, rank=1, world_size=2)
    service.wait(1.0, first, second)
    service.say(second, Leave(0, 0))
    service.fill(first)
    service.wait(2 * PATIENCE_S, first)
    waiting(service, "rank 1 of 2 left", first)


def test_an_engine_that_makes_nothing_is_told() -> None:
    """Nobody else is blamed for it, though a rank is missing as well."""
    service = Service()
    first, _ = service.joined(0, world_size=2)
    service.wait(2 * PATIENCE_S, first)
    waiting(service, "its engine has not made the next batch", first)
    assert service.lines[0].endswith("; the last trouble: slide left out: a.tif")
    assert service.status()["troubles"] == ["slide left out: a.tif"]


@pytest.mark.parametrize("what", ["keeps", "pauses", "is silent"])
def test_a_rank_that_holds_the_others_up_is_told(what: str) -> None:
    """It is named, with what it does."""
    service = Service()
    first, _ = service.joined(0, world_size=2)
    second, name = service.joined(1, rank=1, world_size=2)
    if what == "pauses":
        service.desk.handle(second, Pause(), 0.0)
    alive = (first,) if what == "is silent" else (first, second)
    service.wait(SILENT_S + 2, *alive)
    service.fill(*alive, keeps=(name,))
    service.wait(3.0, *alive, keeps=(name,))
    words = {
        "keeps": "rank 1 has all batches that it may have and gives none back",
        "pauses": "rank 1 paused itself",
        "is silent": "rank 1 said nothing for a while",
    }
    waiting(service, words[what], first)


def test_a_broadcast_that_waits_for_its_slowest_is_told() -> None:
    """With the setting that sends it away."""
    service = Service(broadcast=True)
    first, _ = service.joined(0)
    second, name = service.joined(1)
    service.fill(first, second, keeps=(name,))
    service.wait(1.5 * PATIENCE_S, first, second, keeps=(name,))
    waiting(service, 'laggard = "detach"', first)


def test_a_group_that_was_paused_is_told() -> None:
    """With the command that lets it go on."""
    service = Service()
    first, _ = service.joined(0)
    service.say(PEER, Operate(SERVICE_PROTOCOL_VERSION, "", "pause", ""))
    service.wait(2 * PATIENCE_S, first)
    waiting(service, "ctl ADDRESS resume", first)


def test_nobody_is_said_to_wait_who_has_what_it_can_hold() -> None:
    """A training that is busy, and a group without members, wait for nothing."""
    service = Service()
    first, name = service.joined(0)
    service.fill(first, keeps=(name,))
    service.wait(3 * PATIENCE_S, first, keeps=(name,))
    assert service.lines == []
    assert service.status()["waits"] is None
