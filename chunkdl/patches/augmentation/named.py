"""Operations and normalisers that a file can say, by their names; and slideflow's letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from chunkdl.errors import ConfigError
from chunkdl.patches.augmentation.colours import ColourJitter, Grey, Solarise
from chunkdl.patches.augmentation.crops import Cutout, ResizedCrop
from chunkdl.patches.augmentation.jpeg import Jpeg
from chunkdl.patches.augmentation.operation import Operation
from chunkdl.patches.augmentation.quality import Blur, Noise
from chunkdl.patches.augmentation.stains import HedJitter, HedShift, StainJitter
from chunkdl.patches.augmentation.symmetries import Flip, QuarterTurn, Symmetry
from chunkdl.patches.stain.macenko import Macenko
from chunkdl.patches.stain.normaliser import Normaliser
from chunkdl.patches.stain.reinhard import Reinhard

OPERATIONS: Mapping[str, type[Operation]] = {
    kind.name: kind
    for kind in (
        *(Symmetry, QuarterTurn, Flip, ResizedCrop, ColourJitter, Grey, HedJitter, HedShift),
        *(StainJitter, Blur, Noise, Jpeg, Solarise, Cutout),
    )
}
NORMALISERS: Mapping[str, type[Normaliser]] = {"macenko": Macenko, "reinhard": Reinhard}
LETTERS: Mapping[str, Callable[[], Operation]] = {
    "x": lambda: Flip("x", 0.5),
    "y": lambda: Flip("y", 0.5),
    "r": QuarterTurn,
    "j": lambda: Jpeg(50, 100, 0.5),
    "b": lambda: Blur((0.5, 2.0), 0.1),
}
"""slideflow's letters, with the rates that its documentation states."""

Kind = TypeVar("Kind")


def operations_of(given: str | Sequence[Any], normaliser: Normaliser | None) -> list[Operation]:
    """The operations of a list of names, or of slideflow's letters.

    Args:
        given: ``["symmetry", {"name": "hed", "sigma": 0.1}]``, or ``"xyrjbn"``.
        normaliser: for the letter "n", and for "stain" without one of its own.

    Raises:
        ConfigError: there is no such operation or letter, or it has no such parameter.
    """
    if isinstance(given, str):
        return [_of_letter(letter, normaliser) for letter in given]
    return [operation_of(one, normaliser) for one in given]


def operation_of(given: Any, normaliser: Normaliser | None = None) -> Operation:
    """The operation of a name, of a name with parameters, or one that is an operation already.

    Raises:
        ConfigError: there is none, or it has no such parameter; names those that there are.
    """
    if isinstance(given, Operation):
        return given
    name, parameters = _split("an operation", given, OPERATIONS)
    if name == StainJitter.name:
        inner = parameters.get("normaliser", normaliser)
        parameters = {**parameters, "normaliser": Macenko() if inner is None else inner}
        parameters["normaliser"] = normaliser_of(parameters["normaliser"])
    return _made(f"the operation {name!r}", OPERATIONS[name], parameters)


def normaliser_of(given: Any) -> Normaliser:
    """The normaliser of a name, of a name with parameters, or one that is a normaliser already.

    Raises:
        ConfigError: there is none, or it has no such parameter; names those that there are.
    """
    if isinstance(given, Normaliser):
        return given
    name, parameters = _split("a stain normaliser", given, NORMALISERS)
    return _made(f"the stain normaliser {name!r}", NORMALISERS[name], parameters)


def _of_letter(letter: str, normaliser: Normaliser | None) -> Operation:
    if letter == "n":
        if normaliser is None:
            raise ConfigError(
                'the letter "n" augments the stains around the target of a normaliser; give one '
                'with normalise="macenko" or "reinhard", or leave "n" out'
            )
        return StainJitter(normaliser)
    if letter not in LETTERS:
        raise ConfigError(
            f"there is no operation {letter!r}; the letters are {', '.join(LETTERS)} and n. "
            "Other operations are said by a list of names"
        )
    return LETTERS[letter]()


def _split(what: str, given: Any, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    parameters = {"name": given} if isinstance(given, str) else given
    if not isinstance(parameters, Mapping):
        raise ConfigError(f"{given!r:.80} is not {what}; give a name, or a name with numbers")
    rest = dict(parameters)
    name = rest.pop("name", None)
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{name!r:.80} is not {what}; choose one of {', '.join(map(repr, known))}"
        )
    return name, rest


def _made(what: str, kind: Callable[..., Kind], parameters: dict[str, Any]) -> Kind:
    declared = fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in declared]
    if unknown := [key for key in parameters if key not in names]:
        has = f"it has {', '.join(names)}" if names else "it has none"
        raise ConfigError(f"{what} has no parameter {unknown[0]!r}; {has}")
    needed = [field.name for field in declared if field.default is MISSING]
    if missing := [one for one in needed if one not in parameters]:
        raise ConfigError(f"{what} needs the parameter {missing[0]!r}")
    return kind(**parameters)
