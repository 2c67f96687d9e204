"""The failures that the coordinator finds by counting: how often is too often."""

from __future__ import annotations

from chunkdl.errors import Failure, HookError, SlideError, WorkerDied

MAX_SUBSTITUTES = 100
"""Substitutes in a row for one BigChunk before the dataset counts as unreadable."""
MAX_DEATHS = 2
"""Workers that a slide, or a BigChunk without a slide, may end before it is in quarantine."""


def quarantine(what: str, reason: str) -> Failure:
    died = WorkerDied(
        f"{what} has ended {MAX_DEATHS} workers and is not tried again; look at it, or take it out "
        f"of the dataset; the last: {reason}"
    )
    return Failure.of(died)


def crash_loop(most: int, reason: str) -> Failure:
    died = WorkerDied(
        f"workers end again and again, more than max_restarts={most} of them since the last batch; "
        "do what the last one says; after SIGKILL, have fewer loaders or more memory; the last: "
        f"{reason}"
    )
    return Failure.of(died)


def barren(ordinal: int) -> Failure:
    error = HookError(
        f"BigChunk {ordinal} was exhausted before it gave a single SmallChunk",
        hook="extract_smallchunk",
        kind="EXHAUSTED",
    )
    return Failure.of(error)


def too_many_substitutes(last: Failure) -> Failure:
    text = f"{MAX_SUBSTITUTES} substitutes in a row could not be read; the last: {last.message}"
    if last.hook:
        error = HookError(text, hook=last.hook, patient=last.patient, kind=last.raised)
        return Failure.of(error)
    return Failure.of(SlideError(text))


def no_slide_left(slides: int, last: Failure) -> Failure:
    error = SlideError(
        f"none of the {slides} slides of the dataset can be used; the last: {last.message}"
    )
    return Failure.of(error)


def no_slide_of_group(name: str, last: Failure) -> Failure:
    error = SlideError(
        f"no slide of the dataset is left that can give {name or 'anything'}, so the weights of "
        "regions or balance cannot be kept; leave it out, or lower share or tissue_threshold; the "
        f"last: {last.message}"
    )
    return Failure.of(error)


WITHOUT_POSITIONS = frozenset({"NoTissueError", "NothingPassesError"})
"""Kinds of failures that say the same of a slide each time."""


def lost_slide(why: Failure) -> Failure:
    error = SlideError(
        f"a stream without replacement cannot go on without one of its slides: {why.message}; "
        "bring the slide back and go on from a state, or leave it out of the dataset and begin anew"
    )
    return Failure.of(error)


def missing_slide(name: str, why: Failure | None) -> Failure:
    last = "it has no position now" if why is None else why.message
    error = SlideError(
        f"slide {name} gave rows before the state was saved and gives none now, so the stream "
        f"cannot go on as it was: {last}; bring the slide back, or begin the stream anew"
    )
    return Failure.of(error)


def nothing_changes() -> Failure:
    error = HookError(
        'the schedule said "not now", but nothing is on its way that could change its mind; it '
        "has to choose a patient or HALT",
        hook="choose",
        kind="NOT_NOW",
    )
    return Failure.of(error)
