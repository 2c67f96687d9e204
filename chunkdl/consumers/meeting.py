"""Where the ranks of a training meet before they share a stream: the store that torch has for it.

No collective operation is used: it would hang where a rank does not come. Each rank leaves a note
of where it runs and what it wants; the first reads all of them and answers everybody at once.
"""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist
from torch.distributed import distributed_c10d

from chunkdl.consumers.ranks import WHERE, Place, Ranks
from chunkdl.errors import ConfigError, Failure, ServiceDied
from chunkdl.system.awake_clock import deadline_of

MEETING_S = 25.0
"""For all ranks to come."""
SERVICE_S = 600.0
"""For the first rank of a machine to have its service up; the headers of many slides take long."""
LATE_S = 1.0
"""For the answer to a rank that has given up just when the last one came."""
_SLOWEST_POLL_S = 0.2


class Note(msgspec.Struct, frozen=True):
    """What a rank says when it comes.

    Attributes:
        wants: a text that is the same in all ranks that want the same stream.
        machine: a name of the machine that no other has.
        place: as the environment says.
    """

    wants: str
    machine: str
    place: Place | None


class Verdict(msgspec.Struct, frozen=True):
    """What the first rank answers: the place of each rank, or why there is none."""

    places: tuple[Place, ...] = ()
    refusal: str = ""


class Served(msgspec.Struct, frozen=True):
    """The service of a machine: its address, the identity of its rows and the annotated classes in
    them, or why there is none."""

    address: str = ""
    rows_hash: str = ""
    regions: tuple[str, ...] = ()
    failure: Failure | None = None


# Made once, by one thread; see `chunkdl.transport.protocol.codec`.
_NOTE = msgspec.json.Decoder(Note)
_VERDICT = msgspec.json.Decoder(Verdict)
_SERVED = msgspec.json.Decoder(Served)


class Meeting:
    """One stream that all ranks want, and what they tell each other about it.

    Args:
        ranks: which of them this is.
        name: of the stream; the same in all ranks.

    Raises:
        ConfigError: the ranks have no store yet.
    """

    def __init__(self, ranks: Ranks, name: str) -> None:
        self._ranks = ranks
        self._name = name
        self._left = deadline_of(MEETING_S)
        self._store = _store(ranks)

    def places(self, wants: str, place: Place | None) -> tuple[Place, ...]:
        """Wait for all ranks; where each of them runs.

        Raises:
            ConfigError: some do not come, or want something else.
        """
        rank, size = self._ranks.rank, self._ranks.world_size
        here = self._key("here", rank)
        with _sound("the ranks cannot meet"):
            self._store.set(here, msgspec.json.encode(Note(wants, machine_name(), place)))
            if rank == 0:
                notes = self._all_notes(size)
                if notes is not None:
                    self._store.set(self._key("verdict"), msgspec.json.encode(verdict_on(notes)))
            said = self._wait(self._key("verdict"), self._left)
            if said is None:
                absent = [other for other in range(size) if not self._came(other)]
                self._store.set(here, b"")
                said = self._wait(self._key("verdict"), deadline_of(LATE_S))
                if said is None:
                    raise ConfigError(self._nobody(absent or [0]))
        verdict = _VERDICT.decode(said)
        if verdict.refusal:
            raise ConfigError(verdict.refusal)
        return verdict.places

    def _all_notes(self, size: int) -> list[Note] | None:
        """What all ranks say, once they are here; None: they are not all here in time."""
        keys = [self._key("here", rank) for rank in range(size)]
        said: list[bytes] = []

        def here() -> bool:
            if self._store.check(keys):
                said[:] = [bytes(self._store.get(key)) for key in keys]
            # Of one that has given up it is empty; perhaps it comes back.
            return bool(said) and all(said)

        if not _polled(here, self._left):
            return None
        return [_NOTE.decode(text) for text in said]

    def _came(self, rank: int) -> bool:
        key = self._key("here", rank)
        return bool(self._store.check([key]) and self._store.get(key))

    def _nobody(self, absent: Sequence[int]) -> str:
        who = ", ".join(map(str, absent[:8])) + (", ..." if len(absent) > 8 else "")
        return (
            f"LightDL.for_ddp was called in {_named(self._ranks)}, and within {MEETING_S:.0f} s "
            f"not in rank {who}; every rank has to call it, in the same order, and {WHERE}"
        )

    # ------------------------------------------------------------------ services

    def serve(self, node: int, served: Served) -> None:
        """Tell the others of the service of a machine."""
        with _sound("the other ranks cannot be told where the service is"):
            self._store.set(self._key("service", node), msgspec.json.encode(served))

    def services(self, nodes: Sequence[int]) -> tuple[Served, ...]:
        """Wait for the services of machines.

        Raises:
            ServiceDied: one does not come up.
            ChunkdlError: one could not start; the cause is told.
        """
        left = deadline_of(SERVICE_S)
        found = []
        for node in nodes:
            with _sound("this rank cannot be told where the service is"):
                said = self._wait(self._key("service", node), left)
            if said is None:
                raise ServiceDied(
                    f"the first rank of machine {node} has not started its service within "
                    f"{SERVICE_S:.0f} s; its own messages say more"
                )
            served = _SERVED.decode(said)
            if served.failure is not None:
                raise served.failure.to_error()
            found.append(served)
        return tuple(found)

    # -------------------------------------------------------------------- others

    def tell(self, what: str, node: int, value: bytes) -> None:
        """Leave something for the other machines, in place of what was there.

        Raises:
            ServiceDied: the store is gone.
        """
        with _sound("the other machines cannot be told where this one stands"):
            self._store.set(self._key(what, node), value)

    def told(self, what: str, node: int) -> bytes | None:
        """What a machine has left, None before that.

        Raises:
            ServiceDied: the store is gone.
        """
        key = self._key(what, node)
        with _sound("it is not known where the other machines stand"):
            return bytes(self._store.get(key)) if self._store.check([key]) else None

    def _key(self, what: str, number: int | None = None) -> str:
        return "/".join(("chunkdl", self._name, what, *([] if number is None else [str(number)])))

    def _wait(self, key: str, left: Callable[[float], float]) -> bytes | None:
        if _polled(lambda: bool(self._store.check([key])), left):
            return bytes(self._store.get(key))
        return None


def _polled(condition: Callable[[], bool], left: Callable[[float], float]) -> bool:
    """Whether a condition became true in time; a signal is heard meanwhile."""
    pause = 0.005
    while not condition():
        if not (piece_s := left(pause)):
            return False
        time.sleep(piece_s)
        pause = min(pause * 1.5, _SLOWEST_POLL_S)
    return True


@contextmanager
def _sound(what: str) -> Iterator[None]:
    """Errors of torch's store as ours."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ServiceDied(
            f"{what}: the store of the training does not answer ({error}); has its first rank "
            "ended?"
        ) from error


def _store(ranks: Ranks) -> Any:
    """The store of the training: of its process group, or of torchrun's agent."""
    if dist.is_initialized():
        return distributed_c10d._get_default_store()
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if ranks.source != "torchrun" or host is None or port is None or not port.isdecimal():
        raise ConfigError(
            f"this is {_named(ranks)}, and the ranks cannot find each other yet; start the "
            f"training with torchrun, or {WHERE}"
        )
    patience = timedelta(seconds=MEETING_S)
    try:
        return dist.TCPStore(host, int(port), is_master=False, timeout=patience)  # type: ignore[attr-defined]
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"this is {_named(ranks)}, and no store of the training answers at {host}:{port} "
            f"({_first_line(error)}); {WHERE}"
        ) from error


def _named(ranks: Ranks) -> str:
    return f"rank {ranks.rank} of {ranks.world_size} (by {ranks.source})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def machine_name() -> str:
    """A name of this machine; in containers that cannot reach each other it is another one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The services of ranks listen in the network namespace.
    return f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/net').st_ino}"


# ----------------------------------------------------------------------- verdict


def verdict_on(notes: Sequence[Note]) -> Verdict:
    """Where all ranks run, or why they cannot share a stream.

    What the environment says counts where it is the same story in all ranks: it may divide a
    machine in several. Else ranks with the same machine's name are on one.
    """
    for rank, note in enumerate(notes):
        if note.wants != notes[0].wants:
            return Verdict(
                refusal=f"rank {rank} makes another loader here than rank 0; every rank must call "
                "LightDL.for_ddp in the same order, with the same dataset and arguments. Rank 0: "
                f"{notes[0].wants}; rank {rank}: {note.wants}"
            )
    return _by_environment(notes) or _by_machine(notes)


def _by_environment(notes: Sequence[Note]) -> Verdict | None:
    places = [note.place for note in notes if note.place is not None]
    if len(places) < len(notes):
        return None
    size, nodes = places[0].local_world_size, places[0].nodes
    wanted = {Place(rank, size, node, nodes) for rank in range(size) for node in range(nodes)}
    machines = defaultdict(set)
    for note, place in zip(notes, places, strict=True):
        machines[place.node].add(note.machine)
    all_of_them = len(places) == len(wanted) and set(places) == wanted
    if not all_of_them or any(len(names) > 1 for names in machines.values()):
        return None
    return Verdict(tuple(places))


def _by_machine(notes: Sequence[Note]) -> Verdict:
    ranks_of: dict[str, list[int]] = defaultdict(list)
    for rank, note in enumerate(notes):
        ranks_of[note.machine].append(rank)
    if len({len(ranks) for ranks in ranks_of.values()}) > 1:
        counted = ", ".join(
            f"{len(ranks)} on {name.split(' ')[0]}" for name, ranks in ranks_of.items()
        )
        return Verdict(
            refusal=f"every machine must have as many ranks; there are {counted}. Start as many on "
            "each, or a service (chunkdl serve) that all ranks connect to"
        )
    nodes = list(ranks_of)
    return Verdict(
        tuple(
            Place(
                ranks_of[note.machine].index(rank),
                len(ranks_of[note.machine]),
                nodes.index(note.machine),
                len(nodes),
            )
            for rank, note in enumerate(notes)
        )
    )
