"""The patients and labels of a dataset as a service tells them to its consumers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

import msgspec

from chunkdl.dataset.label_tables import slide_labels
from chunkdl.dataset.labels import Label, plain
from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.errors import ConfigError
from chunkdl.service.spec import PatientFacts
from chunkdl.system.steady_log import steady_logger

MOST_BYTES = 32 * 1024
"""Of the labels of one patient or slide: they have to fit into a message with others."""
MOST_ITEMS = 1000
"""Of one label that is a list; see `chunkdl.transport.protocol.codec.MAX_LIST`."""

log = steady_logger("chunkdl")


def facts_that_travel(
    dataset: Dataset, slides: Sequence[SlideEntry]
) -> tuple[tuple[PatientFacts, ...], tuple[dict[str, Label], ...]]:
    """The patients, and the labels of slides, with those labels that can travel.

    A label that cannot for some patient or slide stays behind for all, which is told once: else
    what is not known there would look as if it was missing here.

    Raises:
        ConfigError: one patient or slide has more labels than fit into a message.
    """
    of_patients = [_plain(patient.labels) for patient in dataset]
    of_slides = [_plain(labels) for labels in slide_labels(dataset, slides)]
    left_out = {
        name
        for labels in (*of_patients, *of_slides)
        for name, value in labels.items()
        if not _can_travel(value)
    }
    if left_out:
        log.warning(
            "consumers do not get labels that are not numbers, text, truth values or lists of "
            "these: %s",
            ", ".join(sorted(map(str, left_out))),
        )
    patients = tuple(
        PatientFacts(id=patient.int_uniqueid, name=patient.name, labels=labels)
        for patient, labels in zip(dataset, _without(left_out, of_patients), strict=True)
    )
    for patient in patients:
        _check_size(f"patient {patient.name}", patient.labels)
    own = tuple(_without(left_out, of_slides))
    for entry, labels in zip(slides, own, strict=True):
        _check_size(f"slide {entry.path}", labels)
    return patients, own


def _plain(labels: Mapping[str, object]) -> dict[str, object]:
    found = {}
    for name, value in labels.items():
        made = plain(value)
        found[name] = tuple(made) if isinstance(made, list) else made
    return found


def _without(
    left_out: set[str], every: Iterable[Mapping[str, object]]
) -> Iterable[dict[str, Label]]:
    for labels in every:
        yield {
            name: value
            for name, value in labels.items()
            if name not in left_out and _can_travel(value)
        }


def _can_travel(value: object) -> TypeGuard[Label]:
    """Whether a message can carry the label: 64 bits of an int, text that is Unicode."""
    if isinstance(value, tuple):
        # Lists in lists have no type of their own in a message.
        plainly = all(not isinstance(item, tuple) and _can_travel(item) for item in value)
        return len(value) <= MOST_ITEMS and plainly
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is str:
        # Names of files that are no UTF-8 hold halves of surrogate pairs.
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return value is None or type(value) in (float, bool)


def _check_size(whose: str, labels: Mapping[str, Label]) -> None:
    size = len(msgspec.msgpack.encode(labels))
    if size > MOST_BYTES:
        raise ConfigError(
            f"{whose}: its labels take {size} bytes, and a service sends at most {MOST_BYTES} of "
            "each; leave out the longest, or use LightDL"
        )
