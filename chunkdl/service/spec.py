"""What a service of many consumers is started with: frozen values, checked before.

`EngineConfig` says what one stream is; a service plays it for one or more groups of consumers,
each from a position of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from chunkdl.dataset.labels import Label
from chunkdl.engine.config import EngineConfig
from chunkdl.service.settings import ServiceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientFacts:
    """What a consumer on another machine has to know of a patient."""

    id: int
    name: str
    labels: dict[str, Label]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(ServiceSettings):
    """What the server process is given: its settings, checked, and what it serves.

    Attributes:
        config: of the stream; its cursor is where groups begin that were never served.
        patients: of the dataset, in its order.
        slide_labels: of each slide of `config`, in their order.
    """

    config: EngineConfig
    patients: tuple[PatientFacts, ...]
    slide_labels: tuple[dict[str, Label], ...]
