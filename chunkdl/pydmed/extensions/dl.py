"""PyDmed's `extensions.dl`: a loader that keeps the labels of the loaded patients balanced."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain, zip_longest
from typing import Any

from chunkdl.patients import Patient
from chunkdl.plan.policies import LabelBalanced, Policy
from chunkdl.pydmed.lightdl import LightDL


class LabelBalancedDL(LightDL):
    """Loads patients so that every label has as many of them loaded as any other.

    No patient is loaded twice at a time, and no label is ever left out.

    Args:
        func_getlabel_of_patient: the label of a patient, anything hashable.
        lightdl, more: the arguments of `LightDL`.

    Attributes:
        possible_labels: each label once, in the order of the dataset.
        dict_label_to_listpatients: the patients of each label.
    """

    def __init__(
        self,
        func_getlabel_of_patient: Callable[[Patient], Hashable],
        *lightdl: Any,
        **more: Any,
    ) -> None:
        super().__init__(*lightdl, **more)
        self.func_getlabel_of_patient = func_getlabel_of_patient
        self.dict_label_to_listpatients: dict[Hashable, list[Patient]] = {}
        for patient in self.dataset:
            label = func_getlabel_of_patient(patient)
            self.dict_label_to_listpatients.setdefault(label, []).append(patient)
        self.possible_labels = list(self.dict_label_to_listpatients)

    def policy(self) -> Policy:
        """`LabelBalanced`, or the user's methods where a subclass overrides them."""
        kind = type(self)
        overridden = (
            kind.schedule is not LabelBalancedDL.schedule
            or kind.initial_schedule is not LabelBalancedDL.initial_schedule
        )
        return super().policy() if overridden else LabelBalanced(self.func_getlabel_of_patient)

    def initial_schedule(self) -> Sequence[Patient]:
        """Patients of each label in turn, at random; asked only where a subclass overrides
        `schedule` or calls this."""
        waiting = set(self.get_list_waitingpatients())
        shuffled = [
            random.sample(members, len(members))
            for members in self.dict_label_to_listpatients.values()
        ]
        in_turn = chain.from_iterable(zip_longest(*shuffled))
        return [patient for patient in in_turn if patient in waiting][: self._places()]

    def schedule(self) -> Any:
        """A waiting patient of the label that is rarest among the loaded; asked only where a
        subclass overrides `initial_schedule` or calls this."""
        loaded, waiting = self.get_list_loadedpatients(), self.get_list_waitingpatients()
        if not waiting:
            return super().schedule()
        label_of = self.func_getlabel_of_patient
        places = Counter(map(label_of, loaded))

        def rank(patient: Patient) -> tuple[int, int]:
            return places[label_of(patient)], self.get_schedcount_of(patient)

        best = min(map(rank, waiting))
        candidates = [patient for patient in waiting if rank(patient) == best]
        return (loaded[0] if loaded else None), random.choice(candidates)  # noqa: S311
