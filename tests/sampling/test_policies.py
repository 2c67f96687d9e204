"""The schedule policies, asked as the engine asks them."""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from chunkdl.dataset.patients import Patient, Record
from chunkdl.errors import ConfigError
from chunkdl.sampling.policies.balanced import LabelBalanced
from chunkdl.sampling.policies.in_turn import NeverLoadedFirst, RoundRobin, Uniform
from chunkdl.sampling.policies.policy import HALT, Halt, Policy, Situation
from chunkdl.sampling.policies.quota import Quota, is_built_in
from chunkdl.sampling.policies.weighted import Weighted
from chunkdl.sampling.seeding import Purpose, generator
from tests.sampling.small_plans import EXAMPLES

SEEDS = st.integers(0, 2**64 - 1)
BUILT_IN: list[Policy] = [
    *(Uniform(), RoundRobin(), NeverLoadedFirst(), LabelBalanced(), Weighted("weight")),
    *(Quota(Uniform(), 3), Quota(LabelBalanced(), 2), Quota(Weighted("weight"), 4)),
]
ONE_AT_A_TIME = [policy for policy in BUILT_IN if "LabelBalanced" not in repr(policy)]
LIST: Any = [1]


def some(count: int) -> list[Patient]:
    """Patients of three labels, with weights of which every fifth is 0."""
    return [Patient(100 + i, {"label": "abc"[i % 3], "weight": (i + 1) % 5}) for i in range(count)]


def labelled(sizes: Sequence[int]) -> list[Patient]:
    """Patients of as many labels as there are sizes, so many of each."""
    labels = np.repeat(range(len(sizes)), sizes).tolist()
    return [Patient(i, {"label": label}) for i, label in enumerate(labels)]


def window(patients: int, places: int) -> int:
    """How many of the last choices the engine holds open at most."""
    return min(places + 2, patients - 1)


def situation(
    loads: Sequence[int], open_: Sequence[int] = (), finished: Sequence[int] = (), ordinal: int = 0
) -> Situation:
    return Situation(
        ordinal=ordinal,
        rng=generator(3, Purpose.SCHEDULE, ordinal),
        loads=np.array(loads, dtype=np.int64),
        open=tuple(open_),
        waiting=tuple(p for p in range(len(loads)) if p not in {*open_, *finished}),
        finished=frozenset(finished),
        status={},
    )


def play(
    policy: Policy,
    patients: Sequence[Patient],
    places: int,
    count: int,
    seed: int = 0,
    ends: Mapping[int, int] | None = None,
) -> list[int]:
    """The first choices of a stream; `ends` says after how many BigChunks a patient has no more."""
    asked, last = policy.for_patients(patients), ends or {}
    loads = np.zeros(len(patients), dtype=np.int64)
    open_: deque[int] = deque(maxlen=window(len(patients), places))
    choices: list[int] = []
    for ordinal in range(count):
        finished = [patient for patient, most in last.items() if loads[patient] >= most]
        if len(finished) == len(patients):
            break
        now = situation(loads.tolist(), tuple(open_), finished, ordinal)
        choice = asked.choose(replace(now, rng=generator(seed, Purpose.SCHEDULE, ordinal)))
        if choice is HALT:
            break
        assert isinstance(choice, int)
        loads[choice] += 1
        open_.append(choice)
        choices.append(choice)
    return choices


def asked_often(policy: Policy, now: Situation, times: int = 4_000) -> Counter[object]:
    """What the policy chooses there, with the chance of as many ordinals."""
    chance = (generator(1, Purpose.SCHEDULE, ordinal) for ordinal in range(times))
    return Counter(policy.choose(replace(now, rng=rng)) for rng in chance)


def fits(found: Counter[object], weights: Mapping[int, float]) -> bool:
    """Whether these and no others were chosen, in proportion to their weights."""
    if set(found) != set(weights):
        return False
    expected = np.array(list(weights.values())) / sum(weights.values()) * found.total()
    return bool(stats.chisquare([found[patient] for patient in weights], expected).pvalue > 0.01)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Any state of up to twelve patients of which at least one is not finished."""
    count = draw(st.integers(1, 12))
    one = st.integers(0, count - 1)
    loads = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    finished = draw(st.sets(one, max_size=count - 1))
    return situation(loads, draw(st.lists(one, max_size=14)), sorted(finished), draw(SEEDS))


@EXAMPLES
@given(now=situations(), policy=st.sampled_from(ONE_AT_A_TIME))
def test_a_choice_is_never_finished_and_open_only_where_none_else_is_left(
    now: Situation, policy: Policy
) -> None:
    """In every state; "none else" counts weights of 0 and used-up quotas; never None."""
    patients = some(len(now.loads))
    weighted = "weight" in repr(policy)
    eligible = {
        patient
        for patient in range(len(patients))
        if patient not in now.finished
        and not (isinstance(policy, Quota) and now.loads[patient] >= policy.loads)
        and not (weighted and patients[patient].labels["weight"] == 0)
    }
    waiting, open_ = eligible & {*now.waiting}, eligible & {*now.open}
    choice = policy.for_patients(patients).choose(now)
    if waiting:
        assert choice in waiting
    elif open_:
        recent = {patient: place for place, patient in enumerate(now.open)}
        assert choice == min(open_, key=recent.__getitem__)
    else:
        assert choice is HALT
    assert type(choice) in (int, Halt)


@EXAMPLES
@given(now=situations(), policy=st.sampled_from(BUILT_IN), other=situations())
def test_equal_situations_give_equal_choices(
    now: Situation, policy: Policy, other: Situation
) -> None:
    """By a policy that was asked other things before, and by a copy sent to another process."""
    patients = some(12)
    full = [*now.loads, *[0] * (12 - len(now.loads))]
    asked = policy.for_patients(patients)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(policy)).for_patients(patients)))
    assert repr(copy) == repr(asked)

    def same() -> Situation:
        return situation(full, now.open, sorted(now.finished), now.ordinal)

    first = asked.choose(same())
    asked.choose(situation([1] * 12, other.open, (), other.ordinal))
    assert first == asked.choose(same()) == copy.choose(same())


@EXAMPLES
@given(patients=st.integers(1, 15), places=st.integers(1, 8), seed=SEEDS)
def test_uniform_takes_every_patient_once_before_any_twice(
    patients: int, places: int, seed: int
) -> None:
    """Exactly, however few patients there are."""
    choices = play(Uniform(), some(patients), places, 4 * patients, seed)
    rounds = [choices[start : start + patients] for start in range(0, len(choices), patients)]
    assert [sorted(order) for order in rounds] == [list(range(patients))] * 4


def test_uniform_draws_the_least_loaded_of_the_waiting_with_equal_probability() -> None:
    """A patient that is open does not count, though it has the fewest loads."""
    now = situation([2, 1, 0, 1, 1, 3], open_=[2])
    assert fits(asked_often(Uniform(), now), {1: 1, 3: 1, 4: 1})


@EXAMPLES
@given(patients=st.integers(1, 15), places=st.integers(1, 8))
def test_round_robin_is_the_order_of_the_dataset(patients: int, places: int) -> None:
    """Round after round, without chance."""
    assert play(RoundRobin(), some(patients), places, 3 * patients) == [*range(patients)] * 3


def test_round_robin_goes_on_in_turn_without_those_that_are_finished() -> None:
    """The two that are left take turns, though both are always open."""
    choices = play(RoundRobin(), some(5), 4, 20, ends={0: 1, 2: 3, 3: 1, 4: 2})
    assert choices[:8] == [0, 1, 2, 3, 4, 1, 2, 4]
    assert choices[8:] == [1, 2, *[1] * 10]


def test_never_loaded_first_prefers_what_was_loaded_less() -> None:
    """Weights 1 / (1 + loads); the never-loaded ones all come before any comes twice."""
    weights = {0: 1 / 2, 1: 1 / 3, 2: 1 / 5, 4: 1 / 10}
    now = situation([1, 2, 4, 0, 9], finished=[3])
    assert fits(asked_often(NeverLoadedFirst(), now), weights)
    fresh = situation([1, 0, 1, 0, 8], open_=[0])
    assert fits(asked_often(NeverLoadedFirst(), fresh), {1: 1, 3: 1})
    assert sorted(play(NeverLoadedFirst(), some(30), 4, 30)) == list(range(30))


@pytest.mark.parametrize(
    ("places", "sizes"),
    [(2, (20, 80)), (2, (4, 4)), (4, (20, 80)), (6, (20, 80)), (3, (9, 30, 9)), (4, (7, 8, 9, 60))],
)
def test_label_balance_lasts(places: int, sizes: tuple[int, ...]) -> None:
    """With as many places as labels, and with more; classes of very unlike sizes.

    Whatever stretch of the choices is open, labels differ by at most one BigChunk in it, so none
    is lost; no patient comes twice in a stretch; and within a label patients come in rounds.
    """
    patients = labelled(sizes)
    choices = play(LabelBalanced(), patients, places, 4_000)
    labels = np.array([patient.labels["label"] for patient in patients])[choices]
    for length in (places, window(len(patients), places)):
        for start in range(len(choices) - length):
            counts = np.bincount(labels[start : start + length], minlength=len(sizes))
            assert np.ptp(counts) <= 1
            assert len(set(choices[start : start + length + 1])) == length + 1
    loads = np.bincount(choices, minlength=len(patients))
    assert np.ptp(np.bincount(labels)) <= 1
    for members in np.split(loads, np.cumsum(sizes)[:-1]):
        assert np.ptp(members) <= 1


@pytest.mark.parametrize(
    ("places", "sizes"),
    [(4, (2, 8)), (4, (1, 20)), (2, (1, 20)), (6, (3, 8)), (8, (2, 3, 40)), (9, (1, 1, 1, 40))],
)
def test_a_label_of_few_patients_has_its_share(places: int, sizes: tuple[int, ...]) -> None:
    """Labels come in turn; its patients do so too, and two BigChunks of one of them are among
    those that are open at a time only where there are fewer patients than the label has places."""
    patients = labelled(sizes)
    choices = np.array(play(LabelBalanced(), patients, places, 2_000))
    labels = np.array([patient.labels["label"] for patient in patients])[choices]
    for start in range(len(choices) - len(sizes)):
        assert len(set(labels[start : start + len(sizes)].tolist())) == len(sizes)
    for label, size in enumerate(sizes):
        of_label = choices[labels == label]
        if size < window(len(patients), places) / len(sizes):
            for start in range(size, len(of_label) - size):
                assert len(set(of_label[start : start + size].tolist())) == size
        if size * len(sizes) >= places:
            apart = [np.diff(np.flatnonzero(choices == one)) for one in set(of_label.tolist())]
            assert min(gaps.min() for gaps in apart if len(gaps)) >= places


def test_a_label_whose_patients_are_finished_is_passed_over() -> None:
    """Only then; the stream ends with the last patient."""
    policy = LabelBalanced().for_patients(labelled([1, 3]))
    assert policy.choose(situation([5, 1, 1, 1], open_=[1, 2], finished=[0])) in (1, 2, 3)
    assert policy.choose(situation([5, 1, 1, 1], open_=[0, 1, 0, 2])) == 3
    assert policy.choose(situation([1] * 4, open_=[0, 1, 2, 3], finished=[0, 1, 2, 3])) is HALT
    choices = play(LabelBalanced(), labelled([1, 3]), 4, 100, ends={0: 6, 1: 2, 2: 2, 3: 2})
    assert Counter(choices) == {0: 6, 1: 2, 2: 2, 3: 2}


def test_ties_of_labels_go_to_the_fewest_loads_then_to_the_label_left_alone_longest() -> None:
    """The rarest comes first, however often it was loaded; chance decides at the beginning."""
    policy = LabelBalanced().for_patients(labelled([3, 3, 3]))
    assert fits(asked_often(policy, situation([0] * 9)), dict.fromkeys(range(9), 1))
    rarest = situation([1, 0, 0, 5, 5, 5, 1, 0, 0], open_=[0, 6])
    assert fits(asked_often(policy, rarest), {3: 1, 4: 1, 5: 1})
    fewest = situation([1, 1, 1, 2, 1, 1, 1, 1, 1], open_=[3, 0, 6])
    assert fits(asked_often(policy, fewest), {1: 1, 2: 1})
    longest = situation([1] * 9, open_=[3, 0, 6, 7, 1, 4])
    assert set(asked_often(policy, longest, 50)) == {8}


@pytest.mark.parametrize(
    "policy", [LabelBalanced("label"), LabelBalanced(lambda patient: patient.labels["label"])]
)
def test_labels_come_from_a_column_or_a_function(policy: Policy) -> None:
    """What is missing, None or NaN, is a label as any other."""
    labels = [None, "a", float("nan"), "a", 7]
    patients = [Patient(i, {"label": label}) for i, label in enumerate(labels)]
    choices = play(policy, patients, 1, 3)
    assert {(0, 1, 0, 1, 2)[choice] for choice in choices} == {0, 1, 2}


def test_equal_numbers_of_other_types_are_one_label() -> None:
    """A tensor is hashed by its identity, so each would be a label of its own."""
    labels = [torch.tensor(1), np.int64(1), 1, torch.tensor(1), np.array(0)]
    policy = LabelBalanced().for_patients([Patient(i, {"label": v}) for i, v in enumerate(labels)])
    assert asked_often(policy, situation([0] * 5, open_=[0]), 50) == {4: 50}


def test_a_label_of_slides_cannot_balance_patients() -> None:
    """The error says so: to be told that there is none would send people looking for a typo."""
    slide = Record("", "a.svs", {}, {"label": 1})
    with pytest.raises(ConfigError, match="'label' is a label of slides, but a schedule choos"):
        LabelBalanced().for_patients([Patient(0, {"s": slide})])


@pytest.mark.parametrize(
    "weights",
    ["weight", lambda patient: patient.labels["weight"], [1, 2, 3, 4, 0], np.arange(1, 6) % 5],
)
def test_patients_come_in_proportion_to_their_weights(weights: Any) -> None:
    """From a column, a function or numbers; whatever was loaded; a weight of 0 never comes."""
    policy = Weighted(weights).for_patients(some(5))
    now = situation([0, 9, 0, 2, 1])
    assert fits(asked_often(policy, now), {0: 1, 1: 2, 2: 3, 3: 4})
    assert fits(asked_often(policy, replace(now, waiting=(0, 3, 4))), {0: 1, 3: 4})


def test_weights_may_be_as_large_and_as_small_as_floats_are() -> None:
    """Their sum does not overflow, and the smallest do not vanish among themselves."""
    policy = Weighted([1.7e308, 1.7e308, 5e-324, 5e-324]).for_patients(some(4))
    now = situation([0] * 4)
    assert fits(asked_often(policy, now, 500), {0: 1, 1: 1})
    assert fits(asked_often(policy, replace(now, waiting=(2, 3)), 500), {2: 1, 3: 1})


def test_a_weighted_stream_ends_when_only_weights_of_0_are_left() -> None:
    """A weight of 0 is never loaded, not even last."""
    choices = play(Weighted([1, 0, 2]), some(3), 1, 100, ends={0: 3, 2: 4})
    assert Counter(choices) == {0: 3, 2: 4}
    left = situation([3, 1, 4], open_=[1, 2], finished=[0])
    assert Weighted([1, 0, 2]).for_patients(some(3)).choose(left) == 2


@EXAMPLES
@given(
    inner=st.sampled_from([*BUILT_IN[:4], Weighted(lambda patient: 1 + patient.int_uniqueid % 3)]),
    quotas=st.lists(st.integers(0, 4), min_size=1, max_size=9).filter(any),
    places=st.integers(1, 8),
    seed=SEEDS,
)
def test_a_quota_is_reached_exactly_and_then_the_stream_ends(
    inner: Policy, quotas: list[int], places: int, seed: int
) -> None:
    """By every patient, under every policy, though the last ones are open all the time."""
    policy = Quota(inner, lambda patient: quotas[patient.int_uniqueid - 100])
    choices = play(policy, some(len(quotas)), places, 100, seed)
    assert np.bincount(choices, minlength=len(quotas)).tolist() == quotas


def test_a_quota_counts_finished_patients_as_done() -> None:
    """The stream ends when each patient is either finished or at its quota."""
    choices = play(Quota(Uniform(), 3), some(4), 2, 100, ends={1: 2, 3: 9})
    assert Counter(choices) == {0: 3, 1: 2, 2: 3, 3: 3}


def test_labels_stay_balanced_under_a_quota() -> None:
    """What is open counts, also where its patient is at its quota."""
    policy = Quota(LabelBalanced(), 1).for_patients(labelled([2, 2]))
    assert policy.choose(situation([1, 0, 0, 0], open_=[0])) in (2, 3)
    choices = play(Quota(LabelBalanced(), 1), labelled([20, 20]), 4, 100)
    pairs = (np.array(choices) < 20).reshape(-1, 2).sum(axis=1)
    assert pairs.tolist() == [1] * 20


class Chooses(Policy):
    """A user's policy: no base but `Policy`, no hook but `choose`."""

    def __init__(self, choice: Callable[[Situation], int | Halt | None]) -> None:
        self.choice = choice

    def choose(self, now: Situation) -> int | Halt | None:
        return self.choice(now)


class OwnUniform(Uniform):
    """A user's policy that is derived from a built-in one."""


def test_a_policy_is_built_in_only_where_no_user_code_chooses() -> None:
    """Told the patients or not; a quota is what it wraps."""
    assert all(is_built_in(policy) for policy in BUILT_IN)
    assert all(is_built_in(policy.for_patients(some(3))) for policy in BUILT_IN)
    for own in (Chooses(lambda now: 0), OwnUniform()):
        for policy in (own, Quota(own, 1), Quota(Quota(own, 2), 1)):
            assert not is_built_in(policy)
            assert not is_built_in(policy.for_patients(some(3)))


@pytest.mark.parametrize("answer", [2, None, HALT])
def test_a_quota_passes_on_what_a_policy_of_the_user_says(answer: int | Halt | None) -> None:
    """Also "not now" and the end; it does not ask when all quotas are used up."""
    policy = Quota(Chooses(lambda now: answer), 2).for_patients(some(3))
    assert policy.choose(situation([2, 0, 1])) is answer
    assert policy.choose(situation([2, 2, 1], finished=[2])) is HALT


def test_a_quota_refuses_a_choice_beyond_it() -> None:
    """A policy that takes what does not wait cannot exceed the quota."""
    policy = Quota(Chooses(lambda now: 0), 2).for_patients(some(3))
    with pytest.raises(ConfigError, match="chose patient 0, which is at its quota of 2"):
        policy.choose(situation([2, 0, 1]))


@pytest.mark.parametrize("policy", [LabelBalanced(), Weighted([1]), Quota(Uniform(), 1), Policy()])
def test_a_policy_that_cannot_choose_says_what_to_do(policy: Policy) -> None:
    """One that was not told the patients, and one without a choose() of its own."""
    with pytest.raises(ConfigError, match=r"must define choose\(\).*for_patients\(\) returns"):
        policy.choose(situation([0]))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (LabelBalanced("grade"), r"Patient\(100, .* no label 'grade'; it has 'label', 'weight'"),
        (LabelBalanced(lambda patient: LIST), r"Patient\(100, .*\[1\] cannot be used as a label"),
        (Weighted([1, -1, 1]), r"Patient\(101.*at least 0, not -1"),
        (Weighted([1, 1, float("nan")]), r"Patient\(102.*finite.*nan"),
        (Weighted([float("inf"), 1, 1]), r"Patient\(100.*finite.*inf"),
        (Weighted([1, 1]), "2 weights for 3 patients"),
        (Weighted([0, 0, 0]), "all weights are 0"),
        (Weighted("label"), r"Patient\(100.*'a' is not a number"),
        (Quota(Uniform(), 0), "all quotas are 0"),
        (Quota(Uniform(), -1), r"Patient\(100.*at least 0 BigChunks, not -1"),
        (Quota(Uniform(), lambda patient: LIST), r"Patient\(100.*must be an int, not \[1\]"),
        (Quota(Weighted([0, 0, 0]), 1), "all weights are 0"),
    ],
)
def test_what_a_policy_cannot_use_is_refused_at_the_start(policy: Policy, message: str) -> None:
    """The error says what is wrong, and with which patient."""
    with pytest.raises(ConfigError, match=message):
        policy.for_patients(some(3))
