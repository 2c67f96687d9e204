"""What the decisions of a service have to know, out of its specification."""

from __future__ import annotations

from chunkdl.service.decisions.members import GroupFacts
from chunkdl.service.decisions.sessions import MOST_PLANNED_ROW, MOST_ROW, DeskFacts
from chunkdl.service.settings import GroupSpec
from chunkdl.service.spec import ServiceSpec


def group_facts(spec: ServiceSpec, group: GroupSpec) -> GroupFacts:
    """What a group has to know."""
    stream = spec.config.stream
    return GroupFacts(
        name=group.name,
        broadcast=group.mode == "broadcast",
        max_lag_batches=group.max_lag_batches,
        detach=group.laggard == "detach",
        patience_s=spec.silent_s,
        batch_rows=stream.batch_size,
        row_bytes=spec.config.run.batch_slot_bytes // stream.batch_size,
        most_rows=(spec.config.run.batch_slots - 2) * stream.batch_size,
        finite=stream.finite,
        drop_last=stream.drop_last,
        plan_hash=spec.config.plan_hash,
        seed=stream.seed,
    )


def desk_facts(spec: ServiceSpec) -> DeskFacts:
    """What the desk has to know."""
    stream = spec.config.stream
    return DeskFacts(
        rows_hash=spec.config.rows_hash,
        seed=stream.seed,
        batch_rows=stream.batch_size,
        row_format=stream.row_format,
        patients=len(spec.patients),
        slides=len(spec.config.slides),
        max_consumers=spec.max_consumers,
        credit_batches=spec.credit_batches,
        credit_bytes=spec.credit_bytes,
        silent_s=spec.silent_s,
        grace_s=spec.grace_s,
        batch_slots=spec.config.run.batch_slots,
        most_calls=stream.bigchunk_layout.calls,
        most_row=MOST_ROW if stream.replacement else MOST_PLANNED_ROW,
        footprint_px=stream.footprint_px,
        regions=() if stream.annotations is None else stream.annotations.names,
    )
