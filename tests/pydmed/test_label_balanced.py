"""`LabelBalancedDL`: every label keeps its share, and no patient is loaded twice at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.patches.chunks import SmallChunk
from chunkdl.pydmed.extensions.dl import LabelBalancedDL
from tests.pydmed.counting import NumberedCollector, running

LABELS = ("a",) * 12 + ("b",) * 3 + ("c",) * 5


def label_of(patient: Patient) -> Any:
    return patient.dict_records["label"]


def first_loads(kind: type[LabelBalancedDL], places: int, count: int) -> list[Patient]:
    """The patients of the first so many loads, in the order in which they deliver."""
    patients = [Patient(number, {"label": label}) for number, label in enumerate(LABELS)]
    found: dict[int, Patient] = {}
    with running(
        Dataset("labelled", patients), kind=kind, places=places, first=(label_of,)
    ) as loader:
        while len(found) < count + places:
            for chunk in loader.get()[2]:
                found[chunk.dict_info_of_bigchunk["load"]] = chunk.patient
    return list(found.values())[:count]


@pytest.mark.parametrize("places", [2, 3, 6], ids="{} at a time".format)
def test_every_label_has_its_share_of_the_loads(places: int) -> None:
    """With fewer places than labels, as many, and more; none of them disappears."""
    loads = first_loads(LabelBalancedDL, places, 60)
    shares = Counter(map(label_of, loads))
    assert set(shares) == {"a", "b", "c"}
    assert max(shares.values()) - min(shares.values()) <= places, shares
    for begin in range(len(loads) - places):
        together = loads[begin : begin + places]
        assert len(set(together)) == places, "a patient is loaded once at a time"
    assert len(set(loads)) == len(LABELS), "and nobody is forgotten"


@pytest.mark.parametrize(
    ("sizes", "places"),
    [((8, 2), 4), ((19, 1), 4), ((19, 1), 2), ((2, 1), 2), ((20, 2, 1), 5)],
    ids=str,
)
def test_a_rare_label_has_its_share_of_the_smallchunks(sizes: tuple[int, ...], places: int) -> None:
    """As many as any other label, for any numbers of patients, places and labels."""
    labels = np.repeat(range(len(sizes)), sizes).tolist()
    patients = [Patient(number, {"label": label}) for number, label in enumerate(labels)]
    counts: Counter[Any] = Counter()
    with running(
        Dataset("rare", patients), kind=LabelBalancedDL, places=places, batch_size=10,
        first=(label_of,),
    ) as loader:  # fmt: skip
        for _ in range(60):
            counts.update(map(label_of, loader.get()[1]))
    for label in range(len(sizes)):
        assert abs(counts[label] / counts.total() - 1 / len(sizes)) < 0.03, counts


class Checking(NumberedCollector):
    """Leaves a checkpoint for the next load."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, message: Any) -> SmallChunk:
        self.set_checkpoint(call_count)
        return super().extract_smallchunk(call_count, bigchunk, message)


@pytest.mark.parametrize(
    ("rare", "collector", "repeatable"),
    [(1, NumberedCollector, True), (1, Checking, False), (2, Checking, True)],
)
def test_a_state_says_where_two_loads_of_a_patient_may_tell_a_third_one_different_things(
    rare: int, collector: type[Any], repeatable: bool
) -> None:
    """Only where one patient has two places of four, and its loads leave checkpoints."""
    patients = [Patient(number, {"label": int(number < rare)}) for number in range(20)]
    with running(
        Dataset("rare", patients),
        kind=LabelBalancedDL,
        places=4,
        first=(label_of,),
        type_smallchunkcollector=collector,
    ) as loader:
        for _ in range(30):
            loader.get()
        assert loader.state_dict()["deterministic"] == repeatable


def test_a_schedule_of_a_subclass_counts() -> None:
    """It may call the one that it overrides; the patients loaded first are balanced as before."""

    class OnlyB(LabelBalancedDL):
        def schedule(self) -> Any:
            removed, chosen = super().schedule()
            others = self.get_list_waitingpatients()
            return removed, next((p for p in others if label_of(p) == "b"), chosen)

    loads = first_loads(OnlyB, 3, 20)
    assert sorted(map(label_of, loads[:3])) == ["a", "b", "c"]
    assert Counter(map(label_of, loads))["b"] >= 7


def test_initial_patients_of_a_subclass_count() -> None:
    """The loads behind them are balanced as before."""

    class FirstFour(LabelBalancedDL):
        def initial_schedule(self) -> list[Patient]:
            return self.dict_label_to_listpatients["a"][:4]

    loads = first_loads(FirstFour, 4, 40)
    assert [patient.int_uniqueid for patient in sorted(loads[:4])] == [0, 1, 2, 3]
    shares = Counter(map(label_of, loads[4:]))
    assert shares["b"] >= 9
    assert shares["c"] >= 9
