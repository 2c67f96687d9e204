"""What weights of classes and of slides mean for the slides of a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from chunkdl.dataset.labels import plain
from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.settings.annotated import Annotated
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.errors import ConfigError
from chunkdl.sampling.balance import Balance, BalancedSlides
from chunkdl.sampling.strata import Group
from chunkdl.system.printing import printable


def check_balance(arguments: Arguments, stream: StreamConfig) -> None:
    """Refuse what a balance cannot be used with.

    Raises:
        ConfigError: says what to change.
    """
    if arguments.balance is None:
        return
    if stream.rows.by_hooks:
        raise ConfigError(
            "balance weighs slides, and your own classes get patients; use a schedule, such as "
            "LabelBalanced"
        )
    if arguments.schedule is not None:
        raise ConfigError("balance and schedule both choose what is drawn; leave one of them out")
    if arguments.grid or not arguments.replacement:
        raise ConfigError(
            "balance draws slides by weight, and a grid has each position once; leave it out, and "
            "weigh the rows in the loss"
        )


def groups_of(
    dataset: Dataset, slides: Sequence[SlideEntry], arguments: Arguments, annotated: Annotated
) -> tuple[Group, ...]:
    """What has weights over the stream: categories of slides, classes, or both; else empty.

    Raises:
        ConfigError: slides lack what the balance looks at, or nothing is left to draw.
    """
    balance = arguments.balance
    assert balance is None or isinstance(balance, Balance), "checked"
    use, having = annotated.use, annotated.regions_of_slide
    if balance is None and not having:
        return ()
    patients = list(dataset)
    columns = () if balance is None else balance.columns
    labels = [_labels(patients[entry.patient], entry.record, columns) for entry in slides]
    names = [printable(entry.path) for entry in slides]
    balanced = BalancedSlides(balance, [entry.patient for entry in slides], labels, names)
    if not having or use is None or use.regions is None:
        groups = balanced.groups(range(len(slides)))
    else:
        groups = []
        for region, weight in use.regions.weights.items():
            index = use.names.index(region)
            here = [slide for slide, regions in enumerate(having) if index in regions]
            groups += [
                dataclasses.replace(group, weight=group.weight * weight)
                for group in balanced.groups(here, index, repr(region))
            ]
    if not groups:
        raise ConfigError("balance: all slides have the weight 0, so nothing can be drawn")
    return tuple(groups)


def _labels(patient: Any, record: int, columns: Sequence[str]) -> Mapping[str, Any]:
    """The values of a slide, or of its patient where it has none."""
    found = {}
    for column in columns:
        own = plain(patient.slides[record].labels.get(column))
        found[column] = plain(patient.labels.get(column)) if own is None else own
    return found
