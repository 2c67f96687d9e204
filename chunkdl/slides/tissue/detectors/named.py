"""The detectors that a file can say, by their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import msgspec

from chunkdl.errors import ConfigError
from chunkdl.slides.tissue.detectors.blurred_areas import BlurredAreas
from chunkdl.slides.tissue.detectors.clam import PRESETS, Clam
from chunkdl.slides.tissue.detectors.combined import (
    TissueAll,
    TissueAny,
    TissueWithout,
    is_detector,
)
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.slides.tissue.detectors.grey_otsu import GreyOtsu
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.onnx_tissue import OnnxTissue
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.detectors.own_tissue import OwnTissue
from chunkdl.slides.tissue.detectors.pen_areas import PenAreas

_Kind = Callable[..., TissueDetector]

_BY_NAME: Mapping[str, tuple[_Kind, Mapping[str, Any]]] = {
    "otsu": (Otsu, {}),
    "hsv": (HsvRange, {}),
    **{name: (Clam, preset) for name, preset in PRESETS.items()},
    "wsistream-otsu": (GreyOtsu, {}),
    "wsistream-hsv": (HsvRange, {}),
    "wsistream-clam": (Clam, {}),
    "pen": (PenAreas, {}),
    "blur": (BlurredAreas, {}),
    "onnx": (OnnxTissue, {}),
}
"""The kind of each, and what its name says of the parameters."""
_SEVERAL: Mapping[str, _Kind] = {"all": TissueAll, "any": TissueAny}
NAMES = (*_BY_NAME, *_SEVERAL, "without")
MOST_DEPTH = 8
"""Of detectors in detectors."""


def detector_of(given: str | Mapping[str, Any] | TissueDetector, depth: int = 0) -> TissueDetector:
    """The detector of a name, of a name with parameters, or one that is a detector already.

    ``"otsu"``, ``{"name": "hsv", "hue": [90, 360]}``,
    ``{"name": "all", "detectors": ["otsu", "hsv"]}``,
    ``{"name": "without", "detector": "otsu", "remove": ["pen"]}``.

    Args:
        given: what the user said.
        depth: of detectors that this one is in.

    Raises:
        ConfigError: there is none, or it has no such parameter; names those that there are.
    """
    if not isinstance(given, str | Mapping):
        return given
    parameters = {"name": given} if isinstance(given, str) else dict(given)
    name = parameters.pop("name", None)
    if depth > MOST_DEPTH:
        raise ConfigError(f"tissue detectors lie in each other more than {MOST_DEPTH} deep")
    if isinstance(name, str) and name in _SEVERAL:
        inner = _inner(name, parameters, "detectors", depth)
        _refuse_more(name, parameters, "detectors")
        return _SEVERAL[name](*inner)
    if name == "without":
        inner = _inner(name, parameters, "remove", depth)
        detector = _one(parameters.pop("detector", None), depth)
        _refuse_more(name, parameters, "detector and remove")
        return TissueWithout(detector, *inner)
    if name == OwnTissue.name:
        raise ConfigError(
            "a tissue detector of your own cannot be said in a file, because a function is code: "
            'give tissue=chunkdl.OwnTissue(function, version="1") in Python, or a tissue_mask for '
            "each slide"
        )
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ConfigError(
            f"there is no tissue detector {name!r:.80}; choose one of "
            f"{', '.join(map(repr, NAMES))} or give your own function as chunkdl.OwnTissue"
        )
    return _single(name, parameters)


def _single(name: str, parameters: dict[str, Any]) -> TissueDetector:
    kind, preset = _BY_NAME[name]
    declared = [field for field in fields(kind) if field.init]  # type: ignore[arg-type]
    names = [field.name for field in declared]
    if unknown := [key for key in parameters if key not in names]:
        raise ConfigError(
            f"the tissue detector {name!r} has no parameter {unknown[0]!r:.80}; it has "
            f"{', '.join(names)}"
        )
    if missing := [
        field.name
        for field in declared
        if field.default is MISSING and field.name not in parameters
    ]:
        raise ConfigError(f"the tissue detector {name!r} needs the parameter {missing[0]!r}")
    try:
        detector: TissueDetector = msgspec.convert({**preset, **parameters}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the tissue detector {name!r}: {error}") from error
    return detector


def _inner(name: str, parameters: dict[str, Any], wanted: str, depth: int) -> list[TissueDetector]:
    """The detectors of a list in a combined one."""
    given = parameters.pop(wanted, None)
    if not isinstance(given, list | tuple) or not given:
        shape = {
            "detectors": f'{{name = "{name}", detectors = ["otsu", "hsv"]}}',
            "remove": f'{{name = "{name}", detector = "otsu", remove = ["pen"]}}',
        }
        raise ConfigError(
            f"the tissue detector {name!r} needs a list of detectors as {wanted}: {shape[wanted]}"
        )
    return [_one(one, depth) for one in given]


def _one(given: Any, depth: int) -> TissueDetector:
    if not isinstance(given, str | Mapping) and not is_detector(given):
        raise ConfigError(
            f"{given!r:.80} is no tissue detector; give a name, or a name with parameters"
        )
    return detector_of(given, depth + 1)


def _refuse_more(name: str, parameters: dict[str, Any], known: str) -> None:
    if parameters:
        raise ConfigError(
            f"the tissue detector {name!r} has no parameter {next(iter(parameters))!r:.80}; it has "
            f"{known}"
        )
