"""From names of slide files to patients: what a naming is, and what is made of its answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from chunkdl.dataset.labels import RESERVED, refusal
from chunkdl.dataset.tables import refuse
from chunkdl.errors import DatasetError
from chunkdl.slides.address import parse_address
from chunkdl.slides.search import slide_names
from chunkdl.system.steady_log import steady_logger

Misfits = Literal["error", "leave_out"]
_MOST_NAMED = 5

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True)
class NamedSlide:
    """What a naming says of a slide.

    Attributes:
        patient: name of its patient; slides with equal names are of one patient.
        of_patient: labels of the patient. All slides of a patient must agree, and None agrees with
            everything.
        of_slide: labels of the slide.
    """

    patient: str
    of_patient: Mapping[str, object] = field(default_factory=dict)
    of_slide: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedPatient:
    """All slides of one patient.

    Attributes:
        name: of the patient.
        labels: of the patient.
        slides: rootdir, relativedir and labels of each slide, in the order they were given in.
    """

    name: str
    labels: dict[str, object] = field(default_factory=dict)
    slides: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)


class Naming(Protocol):
    """How the files of a data set are named; any object with this method is one."""

    def read(self, path: str) -> NamedSlide | None:
        """What the name says.

        Args:
            path: of a slide file, absolute. It need not be there.

        Returns:
            None for a slide that is not wanted, such as a frozen one.

        Raises:
            DatasetError: the name is no name of the data set; the message says why.
        """


def patients_of_slides(slides: list[tuple[str, str]]) -> list[NamedPatient]:
    """A patient for each slide, who is called as people call the slide.

    Args:
        slides: as (rootdir, relativedir).
    """
    return [
        NamedPatient(called, slides=[(*slide, {})])
        for called, slide in zip(slide_names(slides), slides, strict=True)
    ]


def named_patients(
    slides: Sequence[tuple[str, str]], naming: Naming, misfits: Misfits
) -> list[NamedPatient]:
    """The patients of slides, in the order of their first slides.

    Args:
        slides: as (rootdir, relativedir).
        naming: reads their names.
        misfits: what becomes of a name that does not fit: an error, or the slide is left out and
            one warning says how many are, and names some.

    Raises:
        DatasetError: a name does not fit, a patient has two values of a label, or nothing is left.
    """
    if misfits not in ("error", "leave_out"):
        raise DatasetError(f"misfits={misfits!r:.80} must be 'error' or 'leave_out'")
    called = type(naming).__name__
    read: list[tuple[str, str, NamedSlide]] = []
    problems: list[str] = []
    for root, relative in slides:
        try:
            said = naming.read(parse_address(os.path.join(root, relative)).path)
            if said is not None:
                _check(said)
                read.append((root, relative, said))
        except DatasetError as error:
            problems.append(f"{relative}: {error}")
    if misfits == "error" or not read:
        refuse(f"{called} does not fit {len(problems)} of {len(slides)} slides", problems)
    elif problems:
        more = len(problems) - _MOST_NAMED
        log.warning(
            "%d of %d slides are left out, because %s does not fit their names: %s%s",
            *(len(problems), len(slides), called, "; ".join(problems[:_MOST_NAMED])),
            f"; and {more} more" if more > 0 else "",
        )
    if not read:
        raise DatasetError(f"{called} leaves out all {len(slides)} slides; check its parameters")
    if unwanted := len(slides) - len(read) - len(problems):
        log.info("%d of %d slides are left out, as %r says", unwanted, len(slides), naming)
    return _patients(called, read)


def _check(said: NamedSlide) -> None:
    if not isinstance(said.patient, str) or not said.patient:
        raise DatasetError(f"the name of the patient is {said.patient!r:.80}, and must be text")
    for name in (*said.of_patient, *said.of_slide):
        if not isinstance(name, str) or name in RESERVED or name.startswith("slide:"):
            raise DatasetError(refusal(name) or f"a label cannot be named {name!r}")


def _patients(called: str, read: Sequence[tuple[str, str, NamedSlide]]) -> list[NamedPatient]:
    patients: dict[str, NamedPatient] = {}
    problems = []
    for root, relative, said in read:
        patient = patients.setdefault(said.patient, NamedPatient(said.patient))
        patient.slides.append((root, relative, dict(said.of_slide)))
        for name, value in said.of_patient.items():
            earlier = patient.labels.get(name)
            if earlier is None or value is None or value == earlier:
                patient.labels[name] = value if earlier is None else earlier
            else:
                problems.append(
                    f"patient {said.patient} has {name}={earlier!r} by one slide and {value!r} by "
                    f"{relative}; move the slide, or give the labels in a table"
                )
    refuse(called, problems)
    return list(patients.values())
