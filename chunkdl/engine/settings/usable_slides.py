"""Which slides of a dataset can give the wished rows, by what their headers say.

The answer for a slide depends on its header and on the wish, never on its place in the dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import OnError, StreamConfig
from chunkdl.engine.work.given_masks import given_mask
from chunkdl.errors import ConfigError, ResolutionError, SlideError
from chunkdl.slides.header_facts import HeaderFacts, header_facts
from chunkdl.slides.microns import MPP_TIMES_POWER
from chunkdl.slides.resolution import GIVE_MPP, mean_mpp, resolve
from chunkdl.slides.slide import SlideInfo
from chunkdl.slides.tissue.cache import default_folder
from chunkdl.system.printing import printable
from chunkdl.system.steady_log import steady_logger

MOST_NAMED = 20
"""Slides that one message names; the others are counted."""
CHECKED_MASKS = 64
"""Given tissue masks that are read before anything starts, evenly spread."""
LEAVE_OUT = "leave them out with on_error='substitute'"
SMALLER = "lower smallchunk_size, or ask for a finer resolution"
NOT_EXACT = "leave exact=True out, or these slides, or ask for others"

log = steady_logger("chunkdl")


@dataclass(frozen=True, slots=True)
class _Findings:
    """What was found, each a line for people; only grows.

    Attributes:
        without_mpp: slides that do not say their microns per pixel, which the wish needs.
        by_objective: slides whose microns per pixel are taken from their objective, with its power.
        unserved: slides that cannot give the resolution for other reasons, with the reason.
        too_small: slides that do not hold a SmallChunk at the resolution, with their size.
        partly: slides that can give some of the resolutions that are drawn, and not all.
        unopened: why slides cannot be opened now.
    """

    without_mpp: list[str] = field(default_factory=list)
    by_objective: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    too_small: list[str] = field(default_factory=list)
    partly: list[str] = field(default_factory=list)
    unopened: list[SlideError] = field(default_factory=list)


def usable_slides(
    slides: Sequence[SlideEntry],
    stream: StreamConfig,
    on_error: OnError | None,
    mask_cache: Path | None,
) -> tuple[SlideEntry, ...]:
    """The slides that stay in the plan, in their order; what is left out is told in warnings.

    A slide that cannot be opened stays: it may come back until its turn.

    Args:
        slides: of the dataset.
        stream: what is wished.
        on_error: "substitute" leaves out slides that cannot give the resolution; anything else
            makes them an error. Slides that are too small for a SmallChunk are always left out.
        mask_cache: folder in which facts of headers are kept; None: the user's.

    Raises:
        ConfigError: a slide has too many positions for a grid.
        ResolutionError: slides cannot give the resolution, all of them named at once; or no slide
            is left.
        SlideError: no slide can be opened, or a given tissue mask does not fit its slide.
    """
    facts = header_facts([entry.path for entry in slides], stream.reader, mask_cache, stream.pixels)
    _tell_notes(facts)
    found = _Findings()
    kept = [
        entry
        for entry, fact in zip(slides, facts, strict=True)
        if _stays(entry, fact, stream, found)
    ]
    unserved = _unserved_text(found, stream, len(slides))
    if unserved and (on_error != "substitute" or not kept):
        raise ResolutionError(f"{unserved}; {_remedy(found, can_leave_out=bool(kept))}")
    _tell_partly(found, stream, len(slides))
    if found.by_objective:
        log.warning(
            "%d of %d slides state their objective and no microns per pixel; %g divided by its "
            "power is taken for them: %s",
            len(found.by_objective),
            len(slides),
            MPP_TIMES_POWER,
            _listed(found.by_objective),
        )
    too_small = _too_small_text(found, stream, len(slides))
    if len(found.unopened) == len(kept):
        # Nothing is left that is known to work.
        raise _nothing_left(found, too_small)
    for text in (unserved, too_small):
        if text:
            log.warning("these slides are left out of the stream: %s", text)
    away = [error for error in found.unopened if error.may_pass]
    wrong = [error for error in found.unopened if not error.may_pass]
    for errors, what in (
        (away, "cannot be opened now; chunkdl tries again when it is their turn"),
        (wrong, "cannot be read; other slides are used instead"),
    ):
        if errors:
            names = _listed(map(str, errors))
            log.warning("%d of %d slides %s: %s", len(errors), len(slides), what, names)
    of_path = dict(zip((entry.path for entry in slides), facts, strict=True))
    _check_masks(kept, of_path, mask_cache)
    _check_grid(kept, of_path, stream)
    return tuple(kept)


def refusal_of(entry: SlideEntry, info: SlideInfo, stream: StreamConfig) -> tuple[str, str]:
    """What a stream would say of one slide by its header.

    Returns:
        Why it refuses the slide or leaves it out, and what it warns of; empty for nothing.
    """
    found = _Findings()
    _stays(entry, info, stream, found)
    unserved, too_small = _unserved_text(found, stream, 1), _too_small_text(found, stream, 1)
    if unserved:
        return f"{unserved}; {_remedy(found, can_leave_out=False)}", ""
    if too_small:
        return f"{too_small}; {SMALLER}", ""
    if found.partly:
        text = _partly_text(found, stream, 1)
        return ("", text) if not stream.resolution.is_exact else (f"{text}; {NOT_EXACT}", "")
    return "", ""


def _stays(entry: SlideEntry, fact: HeaderFacts, stream: StreamConfig, found: _Findings) -> bool:
    name = printable(entry.path)
    if isinstance(fact, SlideError):
        found.unopened.append(fact)
        return True
    wishes = stream.resolution.examples
    if wishes[0].unit == "mpp" and mean_mpp(fact, wishes[0], entry.mpp) is None:
        found.without_mpp.append(name)
        return False
    if wishes[0].by_objective and fact.mpp is None and entry.mpp is None:
        found.by_objective.append(f"{name} ({fact.magnification:g}x)")
    served, small, refusals = 0, "", []
    for wish in wishes:
        try:
            grid = resolve(fact, wish, entry.mpp)
        except ResolutionError as error:
            refusals.append(str(error))
            continue
        if min(grid.width, grid.height) < stream.least_side_px:
            small = small or f"{name} ({grid.width}x{grid.height})"
        else:
            served += 1
    if served == len(wishes):
        return True
    if served:
        found.partly.append(name)
        return True
    if small:
        found.too_small.append(small)
    else:
        found.unserved.append(refusals[0])
    return False


def _unserved_text(found: _Findings, stream: StreamConfig, slides: int) -> str:
    """Which slides cannot give the resolution; empty where all can."""
    wish = str(stream.resolution)
    parts = []
    if found.without_mpp:
        parts.append(
            f"{wish} was asked for, but the files do not state microns per pixel"
            f"{' or an objective' * stream.resolution.examples[0].by_objective} for "
            f"{len(found.without_mpp)} of {slides} slides: {_listed(found.without_mpp)}"
        )
    if found.unserved:
        parts.append(
            f"{wish} is not possible for {len(found.unserved)} of {slides} "
            f"slides: {_listed(found.unserved)}"
        )
    return "; ".join(parts)


def _tell_partly(found: _Findings, stream: StreamConfig, slides: int) -> None:
    """Say which slides can give a part of the resolutions that are drawn.

    Raises:
        ResolutionError: all slides were to give all of them.
    """
    if not found.partly:
        return
    text = _partly_text(found, stream, slides)
    if not stream.resolution.is_exact:
        log.warning("%s; they give the others in their proportions", text)
        return
    raise ResolutionError(f"{text}; {NOT_EXACT}")


def _partly_text(found: _Findings, stream: StreamConfig, slides: int) -> str:
    return (
        f"{len(found.partly)} of {slides} slides cannot give all of {stream.resolution}: "
        f"{_listed(found.partly)}"
    )


def _remedy(found: _Findings, *, can_leave_out: bool) -> str:
    ways = []
    if found.without_mpp:
        ways += [GIVE_MPP, "ask for level= or downsample="]
    if found.unserved:
        ways.append("ask for another resolution or resolution_policy")
    if can_leave_out:
        ways.append(LEAVE_OUT)
    return ", or ".join(ways)


def _too_small_text(found: _Findings, stream: StreamConfig, slides: int) -> str:
    if not found.too_small:
        return ""
    return (
        f"smallchunk_size={stream.smallchunk_px} is larger than {len(found.too_small)} of {slides} "
        f"slides at this resolution: {_listed(found.too_small)}"
    )


def _nothing_left(found: _Findings, too_small: str) -> SlideError:
    if not too_small:
        return found.unopened[0]
    return ResolutionError(f"{too_small}; {SMALLER}")


def _tell_notes(facts: Sequence[HeaderFacts]) -> None:
    """Log what users have to know about their slides."""
    notes = [
        f"{printable(fact.path)}: {note}"
        for fact in facts
        if isinstance(fact, SlideInfo)
        for note in fact.notes
    ]
    for note in notes[:MOST_NAMED]:
        log.warning("slide %s", note)
    if len(notes) > MOST_NAMED:
        log.warning("and %d more notes about slides", len(notes) - MOST_NAMED)


def _check_masks(
    kept: Sequence[SlideEntry], facts: dict[str, HeaderFacts], cache: Path | None
) -> None:
    """Refuse a given tissue mask that does not fit its slide, of some of them."""
    given = [entry for entry in kept if entry.tissue_mask is not None]
    for entry in given[:: max(1, -(-len(given) // CHECKED_MASKS))]:
        fact = facts[entry.path]
        if isinstance(fact, SlideInfo):
            given_mask(entry.tissue_mask, fact, default_folder() if cache is None else cache)


def _check_grid(
    kept: Sequence[SlideEntry], facts: dict[str, HeaderFacts], stream: StreamConfig
) -> None:
    """Refuse a grid with too many positions; which of them have tissue is not known yet."""
    only = stream.resolution.only
    if not stream.on_grid or only is None:
        return
    for entry in kept:
        fact = facts[entry.path]
        if not isinstance(fact, SlideError):
            excess = stream.grid_shape.excess(resolve(fact, only, entry.mpp))
            if excess:
                raise ConfigError(f"slide {printable(entry.path)}: {excess}")


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f", and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return ", ".join(every[:MOST_NAMED]) + more
