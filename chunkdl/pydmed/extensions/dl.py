"""PyDmed's `extensions.dl`: a loader that keeps the labels of the loaded patients balanced."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from itertools import chain, zip_longest
from typing import Any

from chunkdl.dataset.patients import Patient
from chunkdl.pydmed import star
from chunkdl.pydmed.lightdl import LightDL
from chunkdl.sampling.policies.balanced import LabelBalanced
from chunkdl.sampling.policies.policy import Policy

__all__ = ["LabelBalancedDL", *star.EXTENSIONS_DL]

__getattr__ = star.importer(__name__, star.EXTENSIONS_DL)


class LabelBalancedDL(LightDL):
    """Loads patients so that every label has as many of them loaded as any other.

    No label is ever left out, however few patients it has; only where these are fewer than its
    share of the places is one of them loaded twice at a time.

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
        self._balanced = LabelBalanced(func_getlabel_of_patient).for_patients(list(self.dataset))

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
        """A patient of the label that is rarest among the loaded; asked only where a subclass
        overrides `initial_schedule` or calls this."""
        return self._looking().answer_of(self._balanced)
