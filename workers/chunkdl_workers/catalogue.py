"""Patients and slides of a dataset in pages that fit into messages."""

from __future__ import annotations

import msgspec

from chunkdl.dataset.labels import Label
from chunkdl.service.spec import ServiceSpec
from chunkdl.system.printing import file_name_bytes
from chunkdl.transport.protocol.service_messages import CataloguePage

PAGE_BYTES = 40_000
PAGE_ITEMS = 1000
"""A list in a message may have a few more."""


def page(spec: ServiceSpec, first_patient: int, first_slide: int) -> CataloguePage:
    """As many patients and slides from these indices on as fit."""
    patients: list[tuple[int, bytes, dict[str, Label]]] = []
    slides: list[tuple[bytes, dict[str, Label]]] = []
    size = 0
    for facts in spec.patients[first_patient : first_patient + PAGE_ITEMS]:
        entry = facts.id, file_name_bytes(facts.name), facts.labels
        size += len(msgspec.msgpack.encode(entry))
        if size > PAGE_BYTES and patients:
            break
        patients.append(entry)
    asked = slice(first_slide, first_slide + PAGE_ITEMS)
    for slide, labels in zip(spec.config.slides[asked], spec.slide_labels[asked], strict=True):
        told = file_name_bytes(slide.path), labels
        size += len(msgspec.msgpack.encode(told))
        if size > PAGE_BYTES and (slides or patients):
            break
        slides.append(told)
    return CataloguePage(first_patient, tuple(patients), first_slide, tuple(slides))
