"""How often slides are drawn from, as users say it, and the groups and shares that this makes.

Let there be P patients, S slides, s_p of patient p; C categories, S_c slides and P_c patients in
category c, s_{p,c} slides of patient p in it. A slide is drawn with the probability

    1 / (P s_p)              patient: as without a balance
    1 / S                    slide
    w_c / S_c                category, slides alike in it
    w_c / (P_c s_{p,c})      category, patients alike in it, and the slides of each
    w                        weights of the user

with w_c the weight of the category, 1/C where none is given. A patient with slides in several
categories counts in each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.sampling.strata import NO_REGION, Group

Alike = Literal["slide", "patient"]
MOST_BINS = 1000
JOINT = " / "
"""Between the values of several columns, in the name of a category."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How often each slide is drawn from.

    Attributes:
        category: label columns whose values make the categories, which come equally often; of
            several columns the combinations that occur. Empty: there are none.
        alike: what comes equally often inside a category, or of all: "slide" or "patient".
        weights: how often each category comes, by its value as text (of several columns with " / "
            between them); 0: never. None: equally often.
        bins: numbers that are no whole numbers become so many categories of equally many slides,
            by quantiles, named "1" and so on from the smallest; 0: they are refused.
        slide_weights: label column with the weight of each slide itself; excludes all others.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    category: tuple[str, ...] = ()
    alike: Alike = "slide"
    weights: Mapping[str, float] | None = None
    bins: int = 0
    slide_weights: str = ""

    def __post_init__(self) -> None:
        given: Any = self.category
        columns = (given,) if isinstance(given, str) else tuple(given)
        if not all(isinstance(one, str) and one for one in columns):
            raise ConfigError(f"balance: category={self.category!r:.80} must be names of labels")
        object.__setattr__(self, "category", columns)
        if self.alike not in get_args(Alike):
            raise ConfigError(f'balance: alike={self.alike!r:.80} must be "slide" or "patient"')
        whole = isinstance(self.bins, int) and not isinstance(self.bins, bool)
        if not whole or not 0 <= self.bins <= MOST_BINS or self.bins == 1:
            raise ConfigError(
                f"balance: bins={self.bins!r:.80} must be 0, or from 2 to {MOST_BINS}"
            )
        if self.weights is not None:
            object.__setattr__(self, "weights", _weights(self.weights))
        if not columns and (self.weights is not None or self.bins):
            raise ConfigError("balance: weights and bins are those of categories; give category=")
        if not isinstance(self.slide_weights, str) or (self.slide_weights and columns):
            raise ConfigError(
                "balance: slide_weights must be the name of a label, without category"
            )

    @property
    def key(self) -> str:
        """What it says, for the identity of the stream."""
        return repr(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The labels that it looks at."""
        return (self.slide_weights,) if self.slide_weights else self.category


def checked_balance(name: str, value: Any) -> Balance | None:
    """What a user means: a word, a list of levels, a table, or a `Balance`.

    "patient" is None, because it is what streams do without.

    Raises:
        ConfigError: it is none of these.
    """
    if value is None or isinstance(value, Balance):
        return value
    if value == "patient":
        return None
    if value == "slide":
        return Balance()
    if isinstance(value, list | tuple):
        return _of_levels(name, value)
    fields = tuple(Balance.__dataclass_fields__)
    if isinstance(value, Mapping) and value and set(value) <= set(fields):
        return Balance(**value)
    raise ConfigError(
        f'{name}={value!r:.80} must be "patient", "slide", a list such as ["grade", "patient", '
        f'"slide"], or a table of {", ".join(fields)}'
    )


def _of_levels(name: str, value: Sequence[Any]) -> Balance:
    levels = list(value)
    alike: Alike = "slide"
    if levels[-1:] == ["slide"]:
        levels.pop()
    if levels[-1:] == ["patient"]:
        alike = "patient"
        levels.pop()
    if not levels or {"slide", "patient"} & set(map(str, levels)):
        raise ConfigError(
            f'{name}={value!r:.80} must be labels and then "patient" and "slide", such as '
            '["grade", "patient", "slide"]'
        )
    return Balance(tuple(levels), alike)


def _weights(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"balance: weights={given!r:.80} must be weights by category")
    found = {}
    for category, weight in given.items():
        right = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not right or not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                f"balance: the weight of {category!r:.80} must be 0 or more, not {weight!r:.80}"
            )
        found[str(category)] = float(weight)
    if not any(found.values()):
        raise ConfigError("balance: all weights are 0")
    return dict(sorted(found.items()))


class BalancedSlides:
    """The slides of a stream, as a balance sees them.

    Args:
        balance: that is wished; None: patients alike.
        patients: of each slide, as an index.
        labels: of each slide, its values of the columns of the balance.
        names: of the slides, for messages.

    Raises:
        ConfigError: a slide lacks a value, or has an impossible one; weights are not those of the
            categories.
    """

    def __init__(
        self,
        balance: Balance | None,
        patients: Sequence[int],
        labels: Sequence[Mapping[str, Any]],
        names: Sequence[str],
    ) -> None:
        self._balance = balance
        self._patients = patients
        self._own: list[float] | None = None
        self._category = [""] * len(patients)
        if balance is None:
            return
        values = {
            column: [_value(one, column, name) for one, name in zip(labels, names, strict=True)]
            for column in balance.columns
        }
        if balance.slide_weights:
            found = values[balance.slide_weights]
            self._own = [_own_weight(one, name) for one, name in zip(found, names, strict=True)]
            return
        texts = [_texts(column, values[column], balance.bins) for column in balance.category]
        if texts:
            self._category = [JOINT.join(parts) for parts in zip(*texts, strict=True)]
        if balance.weights is not None:
            there, given = set(self._category), set(balance.weights)
            if there != given:
                raise ConfigError(
                    f"balance: weights are given for {sorted(given)[:10]}, and the categories of "
                    f"{', '.join(balance.category)} are {sorted(there)[:10]}; give one for each"
                )

    def groups(self, slides: Sequence[int], region: int = NO_REGION, name: str = "") -> list[Group]:
        """Groups of some slides, whose weights are 1 together.

        Args:
            slides: indices, at least one.
            region: class that is drawn in them.
            name: of the class.
        """
        balance = self._balance
        weights = None if balance is None else balance.weights
        found: list[tuple[str, float, dict[int, float]]] = []
        for category in sorted({self._category[slide] for slide in slides}):
            weight = 1.0 if weights is None else weights[category]
            here = [slide for slide in slides if self._category[slide] == category]
            shares = {slide: share for slide, share in self._shares(here).items() if share > 0}
            if weight > 0 and shares:
                found.append((category, weight, shares))
        total = sum(weight for _, weight, _ in found)
        return [
            Group(" of ".join(filter(None, (name, category))), region, weight / total, shares)
            for category, weight, shares in found
        ]

    def _shares(self, slides: Sequence[int]) -> dict[int, float]:
        """How often each of the slides of one category comes, 1 together, patient by patient."""
        by_patient: dict[int, list[int]] = {}
        for slide in slides:
            by_patient.setdefault(self._patients[slide], []).append(slide)
        if self._own is not None:
            own = {slide: self._own[slide] for of in by_patient.values() for slide in of}
            total = sum(own.values())
            return {slide: weight / total for slide, weight in own.items()} if total else {}
        if self._balance is not None and self._balance.alike == "slide":
            return {slide: 1 / len(slides) for of in by_patient.values() for slide in of}
        return {slide: 1 / len(by_patient) / len(of) for of in by_patient.values() for slide in of}


def _value(labels: Mapping[str, Any], column: str, slide: str) -> Any:
    value = labels.get(column)
    if value is None or value != value:
        raise ConfigError(
            f"balance: slide {slide} has no value of {column!r}; give it one, or leave the slide "
            "out"
        )
    return value


def _own_weight(value: Any, slide: str) -> float:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value < 0:
        raise ConfigError(f"balance: the weight of slide {slide} is {value!r:.80}, not 0 or more")
    return float(value)


def _texts(column: str, values: Sequence[Any], bins: int) -> list[str]:
    """The categories of a column, as texts."""
    fractions = [one for one in values if isinstance(one, float) and not one.is_integer()]
    if not fractions:
        return [str(int(one)) if isinstance(one, float) else str(one) for one in values]
    if not all(isinstance(one, int | float) for one in values):
        raise ConfigError(f"balance: {column!r} has numbers for some slides and texts for others")
    if not bins:
        raise ConfigError(
            f"balance: {column!r} has numbers such as {fractions[0]!r}, each a category of its "
            "own; give bins="
        )
    numbers = np.array(values, np.float64)
    edges = np.quantile(numbers, np.arange(1, bins) / bins)
    return [str(1 + int(one)) for one in np.searchsorted(edges, numbers, side="left")]
