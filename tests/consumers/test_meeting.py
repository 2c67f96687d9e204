"""Where ranks run and whether they want the same, from the notes that they leave in the store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

import chunkdl.consumers.meeting
from chunkdl.consumers.meeting import Meeting, Note, Served, machine_name, verdict_on
from chunkdl.consumers.ranks import Place, Ranks
from chunkdl.errors import ChunkdlError, ConfigError, Failure, ServiceDied, SlideError

distributed: Any = torch.distributed
"""It does not say which of its names are public."""


def notes(*said: tuple[str, Place | None]) -> list[Note]:
    """Of ranks that want the same: machine, and place by the environment."""
    return [Note("the same", machine, place) for machine, place in said]


def test_ranks_of_one_machine_are_counted_where_the_environment_says_nothing() -> None:
    """Under mp.spawn, and in Lightning's processes, the machine's name is all there is."""
    found = verdict_on(notes(("a", None), ("a", None), ("a", None)))
    assert found.places == tuple(Place(rank, 3, 0, 1) for rank in range(3))


def test_machines_are_counted_in_the_order_of_their_ranks() -> None:
    """Also where ranks were dealt out to the machines in turn."""
    found = verdict_on(notes(("b", None), ("a", None), ("b", None), ("a", None)))
    assert found.places == (
        Place(0, 2, 0, 2),
        Place(0, 2, 1, 2),
        Place(1, 2, 0, 2),
        Place(1, 2, 1, 2),
    )


def test_the_environment_may_divide_a_machine() -> None:
    """Two agents of torchrun on one machine are two machines for it, and for us."""
    said = Place(0, 1, 0, 2), Place(0, 1, 1, 2)
    assert verdict_on(notes(("a", said[0]), ("a", said[1]))).places == said


@pytest.mark.parametrize(
    "said",
    [
        pytest.param((Place(0, 2, 0, 1), None), id="one does not know"),
        pytest.param((Place(0, 1, 0, 1), Place(0, 1, 0, 1)), id="both are the only one"),
        pytest.param((Place(0, 2, 0, 1), Place(0, 2, 0, 1)), id="both are the first"),
        pytest.param((Place(0, 1, 0, 2), Place(0, 1, 0, 2)), id="both are on the first machine"),
    ],
)
def test_an_environment_that_tells_different_stories_does_not_count(
    said: tuple[Place | None, ...],
) -> None:
    """Then the machines' names do."""
    found = verdict_on(notes(*(("a", place) for place in said)))
    assert found.places == (Place(0, 2, 0, 1), Place(1, 2, 0, 1))


def test_an_environment_that_puts_two_machines_into_one_does_not_count() -> None:
    """The service of one could not be reached from the other."""
    found = verdict_on(notes(("a", Place(0, 2, 0, 1)), ("b", Place(1, 2, 0, 1))))
    assert found.places == (Place(0, 1, 0, 2), Place(0, 1, 1, 2))


def test_machines_with_other_numbers_of_ranks_are_refused() -> None:
    """The numbers and the remedy are in the message."""
    found = verdict_on(notes(("a x", None), ("a x", None), ("b y", None)))
    assert not found.places
    assert "2 on a, 1 on b" in found.refusal
    assert "chunkdl serve" in found.refusal


def test_ranks_that_want_something_else_are_refused_by_number() -> None:
    """One that makes its loaders in another order is told of, with what both want."""
    found = verdict_on([Note("this", "a", None), Note("this", "a", None), Note("that", "a", None)])
    assert "rank 2 makes another loader here than rank 0" in found.refusal
    assert "Rank 0: this; rank 2: that" in found.refusal


# ------------------------------------------------------------------ with a store


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long the ranks wait for each other, seconds."""
    return lambda seconds: monkeypatch.setattr(chunkdl.consumers.meeting, "MEETING_S", seconds)


@pytest.fixture(params=["tcp", "file", "hash"])
def meeting(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], Meeting]]:
    """Makes the meeting of a rank of two, with each kind of store that torch has."""
    kept: list[Any] = []
    if request.param == "hash":
        kept.append(distributed.HashStore())
    elif request.param == "tcp":
        kept.append(distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))

    def opened() -> Any:
        if request.param == "hash":
            return distributed.PrefixStore("x", kept[0])
        if request.param == "tcp":
            return distributed.TCPStore("127.0.0.1", kept[0].port, is_master=False)
        return distributed.FileStore(str(tmp_path / "store"), 2)

    monkeypatch.setattr(chunkdl.consumers.meeting, "_store", lambda *_: opened())
    yield lambda rank: Meeting(Ranks(rank, 2, "torchrun"), "0/1")
    kept.clear()


def together(*calls: Callable[[], Any]) -> list[Any]:
    """What each of the calls returns or raises, all at once."""
    found: list[Any] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            found[number] = calls[number]()
        except ChunkdlError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_ranks_that_meet_know_their_places(meeting: Callable[[int], Meeting]) -> None:
    """Through each kind of store; all hear the same."""
    ranks = [meeting(rank) for rank in range(2)]
    answers = together(*(lambda rank=rank: rank.places("x", None) for rank in ranks))
    assert answers == [(Place(0, 2, 0, 1), Place(1, 2, 0, 1))] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_partner_never_comes_says_so(
    meeting: Callable[[int], Meeting], in_time: Callable[[float], None], rank: int
) -> None:
    """The message names who is missing and where the call belongs."""
    in_time(0.2)
    with pytest.raises(ConfigError, match=rf"rank {rank} of 2.*not in rank {1 - rank};.*spawn"):
        meeting(rank).places("x", None)


@pytest.mark.parametrize("early", [0, 1])
def test_a_rank_that_gave_up_may_come_again(
    meeting: Callable[[int], Meeting], in_time: Callable[[float], None], early: int
) -> None:
    """What it said before is taken back: the other does not believe it to be there."""
    in_time(0.1)
    with pytest.raises(ConfigError):
        meeting(early).places("x", None)
    with pytest.raises(ConfigError, match=f"not in rank {early}"):
        meeting(1 - early).places("x", None)
    in_time(20)
    ranks = [meeting(rank) for rank in range(2)]
    answers = together(*(lambda rank=rank: rank.places("x", None) for rank in ranks))
    assert answers == [(Place(0, 2, 0, 1), Place(1, 2, 0, 1))] * 2


def test_ranks_that_want_different_streams_all_hear_of_it(
    meeting: Callable[[int], Meeting],
) -> None:
    """Nobody goes on to wait for rows that never come."""
    first, second = meeting(0), meeting(1)
    answers = together(lambda: first.places("x", None), lambda: second.places("y", None))
    assert all(isinstance(answer, ConfigError) for answer in answers)


def test_why_a_service_could_not_start_is_told_to_all(meeting: Callable[[int], Meeting]) -> None:
    """The others raise the error of the one that tried, instead of waiting."""
    meeting(0).serve(0, Served(failure=Failure.of(SlideError("it is cut short", slide="a.svs"))))
    with pytest.raises(SlideError, match="it is cut short"):
        meeting(1).services([0])
    served = Served("ipc://somewhere", "hash")
    meeting(0).serve(1, served)
    assert meeting(1).services([1]) == (served,)


def test_a_store_that_is_gone_is_an_error_of_ours() -> None:
    """Not one of torch's, and not a wait for its time-out."""
    program = (
        "import sys; from torch.distributed import TCPStore\n"
        'store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)\n'
        "print(store.port, flush=True); sys.stdin.read()"
    )
    with (
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as agent,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert agent.stdout is not None
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        patch.setenv("MASTER_PORT", agent.stdout.readline().strip())
        here = Meeting(Ranks(0, 2, "torchrun"), "0/1")
        agent.kill()
        agent.wait()
        with pytest.raises(ServiceDied, match="the store of the training does not answer"):
            here.places("x", None)


@pytest.mark.parametrize("source", ["Slurm", "Open MPI", "MPICH", "torchrun"])
def test_ranks_without_a_store_are_told_to_make_their_process_group_first(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun and mpirun bring none, and a script that sets RANK may not either; nothing waits."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    asked = time.monotonic()
    with pytest.raises(ConfigError, match=rf"by {source}\).*init_process_group"):
        Meeting(Ranks(1, 2, source), "0/1")
    assert time.monotonic() - asked < chunkdl.consumers.meeting.MEETING_S / 2


def test_a_store_that_nobody_has_opened_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, in_time: Callable[[float], None]
) -> None:
    """Scripts set the address of a store that only init_process_group will open."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    del store
    in_time(1)
    with pytest.raises(ConfigError, match=r"no store of the training answers at 127\.0\.0\.1:"):
        Meeting(Ranks(1, 2, "torchrun"), "0/1")


def test_a_machine_has_one_name() -> None:
    """For all of its processes, whatever their environment."""
    program = "from chunkdl.consumers.meeting import machine_name; print(machine_name())"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "HOSTNAME": "other"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == machine_name()
