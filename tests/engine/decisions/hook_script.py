"""Worlds in which a policy chooses the patients and BigChunks may be exhausted, and their plan.

`HookPlan` says once more, beside the core, what an undisturbed stream delivers: the choices of the
policy in the order of the ordinals, each BigChunk until it is exhausted, then the next of the same
patient, and what the loads of a patient leave to each other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from chunkdl.dataset.patients import Patient
from chunkdl.engine.config import OnError, Order, RowSource, StreamConfig
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.patient_choice import LOOK_AHEAD
from chunkdl.errors import Failure
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.policies.balanced import LabelBalanced
from chunkdl.sampling.policies.in_turn import NeverLoadedFirst, RoundRobin, Uniform
from chunkdl.sampling.policies.policy import HALT, Policy, Situation
from chunkdl.sampling.policies.quota import Quota
from chunkdl.sampling.policies.weighted import Weighted
from chunkdl.sampling.resolutions import FixedResolution
from chunkdl.sampling.rotation import Rotation
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.slides.resolution import Resolution
from tests.engine.decisions.script import PLAN_HASH, TOKEN

POLICIES: tuple[Policy | None, ...] = (
    *(Uniform(), RoundRobin(), NeverLoadedFirst(), LabelBalanced(), Weighted("weight")),
    *(Quota(Uniform(), 2), Quota(LabelBalanced(), 3), None, None),
)
"""None is one of the user's own, which the scheduler is asked for."""


class Content(NamedTuple):
    """What lies in a BigChunk slot."""

    ordinal: int
    attempt: int
    patient: int
    checkpoint: bytes


class Row(NamedTuple):
    """What a collector makes: the how-many-th SmallChunk of which BigChunk."""

    content: Content
    number: int
    call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HookScript:
    """One world, before anything has happened in it.

    A BigChunk gives at most `most_rows` SmallChunks (0: as many as are asked for) and at least
    `fewest_rows`; a patient has nothing left after `lives` loads (0: always something). The
    percentages are the share of BigChunks over which a loader, and a collector, raise.
    """

    seed: int = 0
    places: int = 2
    calls: int = 4
    batch_rows: int = 4
    patients: int = 8
    loaders: int = 1
    collectors: int = 1
    bigchunk_slots: int = 3
    batch_slots: int = 2
    credit: int = 2
    order: Order = "strict"
    policy: Policy | None = POLICIES[1]
    checkpoints: bool = True
    on_hook_error: OnError = "substitute"
    most_rows: int = 0
    fewest_rows: int = 1
    lives: int = 0
    loader_percent: int = 0
    collector_percent: int = 0
    bad_slides: frozenset[int] = frozenset()
    halts_after: int = 0
    not_now_percent: int = 0

    @property
    def one_load(self) -> bool:
        """Whether loads of a patient wait for each other."""
        return self.checkpoints and self.places <= self.patients

    @property
    def exact(self) -> bool:
        """Whether every row follows from the plan, whatever happens on the way."""
        faults = self.loader_percent or self.collector_percent or self.bad_slides
        known = self.one_load or not self.checkpoints
        certain = self.fewest_rows and not self.lives
        return bool(self.policy is not None and known and certain and not faults)

    @property
    def slides_of_patient(self) -> tuple[tuple[int, ...], ...]:
        """None of the first patient, then one, two, none again."""
        slides = iter(range(3 * self.patients))
        return tuple(
            tuple(next(slides) for _ in range(patient % 3)) for patient in range(self.patients)
        )

    def bound_policy(self) -> Policy | None:
        """The policy that knows its patients."""
        patients = [
            Patient(i, {"label": i % 2, "weight": (i + 1) % 4 + 1}) for i in range(self.patients)
        ]
        return None if self.policy is None else self.policy.for_patients(patients)

    def config(self) -> CoreConfig:
        """The same for the core."""
        stream = StreamConfig(
            seed=self.seed,
            batch_size=self.batch_rows,
            smallchunk_px=1,
            bigchunk_px=8,
            resolution=FixedResolution(Resolution("level", 0, "error")),
            num_bigchunks=self.places,
            reuse=1.0,
            smallchunks_per_bigchunk=self.calls,
            tissue_threshold=0.5,
            tissue=None,
            reader="auto",
            grid=False,
            drop_last=False,
            rows=RowSource.HOOKS,
            policy=self.bound_policy(),
            one_load_per_patient=self.one_load,
        )
        return CoreConfig(
            stream=stream,
            slides_of_patient=self.slides_of_patient,
            slides=tuple(f"{slide}.tif" for slide in range(sum(map(len, self.slides_of_patient)))),
            patients=tuple(f"p{patient}" for patient in range(self.patients)),
            bigchunk_slots=self.bigchunk_slots,
            batch_slots=self.batch_slots,
            loaders=self.loaders,
            collectors=self.collectors,
            order=self.order,
            on_error="substitute",
            on_hook_error=self.on_hook_error,
            has_scheduler=self.policy is None,
            plan_hash=PLAN_HASH,
            token=TOKEN,
            max_restarts=10**6,
        )

    def cursor(self) -> Cursor:
        """Where the world begins."""
        return Cursor(plan_hash=PLAN_HASH, seed=self.seed)

    def _number(self, *words: int) -> int:
        # A hash of ints is the same in every process.
        return abs(hash((self.seed, *words)))

    def extent(self, content: Content) -> int:
        """How many SmallChunks a BigChunk gives."""
        if not self.most_rows:
            return 10**9
        span = self.most_rows - self.fewest_rows + 1
        return self.fewest_rows + self._number(1, *content[:3]) % span

    def loader_raises(self, content: Content) -> bool:
        """Whether the hook that extracts this BigChunk raises."""
        return self._number(2, *content[:3]) % 100 < self.loader_percent

    def collector_raises(self, row: Row) -> bool:
        """Whether the hook that extracts this SmallChunk raises."""
        bad = self._number(3, *row.content[:3])
        return bad % 100 < self.collector_percent and row.number == bad // 100 % 3

    def is_finished(self, checkpoint: bytes) -> bool:
        """Whether a patient with that checkpoint has nothing left."""
        return bool(self.lives) and load_number(checkpoint) >= self.lives

    def checkpoint_after(self, row: Row) -> bytes:
        """What the collector sets when it has made a SmallChunk."""
        return b"%d %d" % (load_number(row.content.checkpoint) + 1, row.number)

    def failure(self, hook: str) -> Failure:
        """What a worker says about user code that raised."""
        return Failure("HookError", "it went wrong", "trace", hook=hook, raised="ValueError")


def load_number(checkpoint: bytes) -> int:
    """How many loads of the patient there were, as its checkpoint says."""
    return int(checkpoint.split()[0]) if checkpoint else 0


class HookPlan:
    """The stream of an exact script, worked out BigChunk by BigChunk."""

    def __init__(self, script: HookScript) -> None:
        self._script = script
        self._policy = script.bound_policy()
        self._rotation = Rotation(script.seed, script.places, script.calls)
        self._rows: dict[int, list[tuple[int, int]]] = {}
        self._served: list[dict[int, Row]] = []
        self._loads = generator(0, Purpose.SCHEDULE).integers(1, size=script.patients)
        self._recent = deque[int](maxlen=min(script.places + LOOK_AHEAD, script.patients - 1))
        self._checkpoints: dict[int, bytes] = {}
        self.halt: int | None = None
        """The first ordinal for which there is no patient, once that is known."""

    def rows(self, batch: int) -> list[tuple[int, int]]:
        """(ordinal, call) of each row of a batch."""
        if batch not in self._rows:
            count = self._script.batch_rows
            ordinals, calls = self._rotation.rows(batch * count, count)
            self._rows[batch] = list(zip(ordinals.tolist(), calls.tolist(), strict=True))
        return self._rows[batch]

    def calls(self, ordinal: int) -> range:
        """The calls of a BigChunk."""
        return range(self._script.calls - self._rotation.uses(ordinal), self._script.calls)

    def row(self, ordinal: int, call: int) -> Row | None:
        """What the undisturbed stream of an exact script delivers; None: left out."""
        while self.halt is None and ordinal >= len(self._served):
            self._open(len(self._served))
        return None if ordinal >= len(self._served) else self._served[ordinal][call]

    def _open(self, ordinal: int) -> None:
        script, patients = self._script, range(self._script.patients)
        assert self._policy is not None
        choice = self._policy.choose(
            Situation(
                ordinal=ordinal,
                rng=generator(script.seed, Purpose.SCHEDULE, ordinal),
                loads=self._loads.copy(),
                open=tuple(self._recent),
                waiting=tuple(patient for patient in patients if patient not in self._recent),
                finished=frozenset(),
                status={},
            )
        )
        if choice is HALT:
            self.halt = ordinal
            return
        assert isinstance(choice, int)
        self._loads[choice] += 1
        self._recent.append(choice)
        served: dict[int, Row] = {}
        attempt, first = 0, self.calls(ordinal).start
        for call in self.calls(ordinal):
            content = Content(ordinal, attempt, choice, self._checkpoints.get(choice, b""))
            if call - first == script.extent(content):
                last = served[call - 1]
                if script.checkpoints:
                    self._checkpoints[choice] = script.checkpoint_after(last)
                attempt, first = attempt + 1, call
                checkpoint = self._checkpoints.get(choice, b"")
                content = Content(ordinal, attempt, choice, checkpoint)
            served[call] = Row(content, call - first, call)
        if script.checkpoints:
            self._checkpoints[choice] = script.checkpoint_after(served[script.calls - 1])
        self._served.append(served)


@st.composite
def hook_scripts(draw: st.DrawFn, *, exact: bool = False) -> HookScript:
    """Small worlds of every kind; `exact`: those of which the plan knows every row."""
    places = draw(st.integers(1, 4))
    batch_slots = draw(st.integers(2, 4))
    percents = st.just(0) if exact else st.sampled_from([0, 0, 10, 40])
    checkpoints = draw(st.booleans())
    policies = [policy for policy in POLICIES if policy is not None or not exact]
    return HookScript(
        seed=draw(st.integers(0, 999)),
        places=places,
        calls=draw(st.integers(1, 8)),
        batch_rows=draw(st.integers(1, 20)),
        patients=draw(st.integers(places if exact and checkpoints else 1, 14)),
        loaders=draw(st.integers(1, 3)),
        collectors=draw(st.integers(1, 3)),
        bigchunk_slots=places + draw(st.integers(0, 3)),
        batch_slots=batch_slots,
        credit=draw(st.integers(1, batch_slots + 1)),
        order=draw(st.sampled_from(["strict", "relaxed"])),
        policy=draw(st.sampled_from(policies)),
        checkpoints=checkpoints,
        on_hook_error=draw(st.sampled_from(["substitute", "substitute", "substitute", "raise"])),
        most_rows=draw(st.sampled_from([0, 1, 2, 3, 6])),
        fewest_rows=1 if exact else draw(st.sampled_from([1, 1, 0])),
        lives=0 if exact else draw(st.sampled_from([0, 0, 1, 3])),
        loader_percent=draw(percents),
        collector_percent=draw(percents),
        bad_slides=frozenset() if exact else draw(st.frozensets(st.integers(0, 4), max_size=2)),
        halts_after=0 if exact else draw(st.sampled_from([0, 0, 5, 20])),
        not_now_percent=0 if exact else draw(st.sampled_from([0, 0, 0, 20])),
    )
