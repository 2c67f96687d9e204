"""The loader: reads BigChunks from slides into slots.

Started by the supervisor; knows one arena and the slides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.config import EngineConfig, StreamConfig
from chunkdl.engine.work.load_bigchunk import BigChunkPx, load_bigchunk, survey_window
from chunkdl.engine.work.open_slides import OpenSlide, OpenSlides
from chunkdl.engine.work.window_plans import window_plan
from chunkdl.errors import Failure, HookError, NoTissueError, SlideError
from chunkdl.patches.user_code import load_user_code
from chunkdl.slides.watched import Recalled
from chunkdl.system.own_imports import importing_ours
from chunkdl.transport.flight_recorder import EXTRACT_BIGCHUNK
from chunkdl.transport.memory.arena import Arena
from chunkdl.transport.protocol.engine_messages import (
    BigChunkLoaded,
    GridSurveyed,
    LoadBigChunk,
    LoadFailed,
    Message,
    NothingLeft,
    SlideLooked,
    SlideNote,
    SurveyGrid,
    SurveyWindow,
    WindowSurveyed,
)
from chunkdl_workers.arenas import bigchunk_arena
from chunkdl_workers.link import Link, serve
from chunkdl_workers.process import one_thread_for_torch, yield_to_others

if TYPE_CHECKING:
    from chunkdl.engine.work.load_by_hook import Extractor


class Progress:
    """Says that the loader works, and ends a ticket whose slide was left out meanwhile.

    Used by the one thread of a loader, whose work calls it.

    Attributes:
        slide: index of the slide of the ticket in hand, -1 for none.
    """

    def __init__(self, link: Link, entries: Sequence[SlideEntry]) -> None:
        self._link = link
        self._entries = entries
        self.slide = -1

    def __call__(self) -> None:
        """Called again and again while the loader works.

        Raises:
            Recalled: nobody wants the ticket any more.
        """
        self._link.recorder.beat()
        if self.slide >= 0 and self._link.is_recalled(self.slide):
            raise Recalled

    def left_out(self) -> SlideError:
        """Why a ticket that was recalled has no other answer."""
        return SlideError("it was left out meanwhile", slide=self._entries[self.slide].path)


def work(link: Link, config: EngineConfig, descriptors: list[int]) -> None:
    """Answer tickets until the coordinator is gone."""
    yield_to_others()
    arena = bigchunk_arena(descriptors[0], config)
    progress = Progress(link, config.slides)
    stream, cache = config.stream, config.run.mask_cache
    with OpenSlides(config.slides, stream, cache, progress) as slides, arena:
        if stream.pixel_filter is not None:
            stream.pixel_filter.prepare()
            one_thread_for_torch()
        answer = partial(_answer, stream=stream, slides=slides, arena=arena, progress=progress)
        if stream.rows.by_hooks:
            # A tenth of the start, and most streams have no classes of the user.
            with importing_ours():
                from chunkdl.engine.work.load_by_hook import Extractor

            user = load_user_code(config.user["loader"])
            one_thread_for_torch()
            extractor = Extractor(config, user, slides, link.log, link.warn)
            answer = partial(
                _extracted,
                extractor=extractor,
                slides=slides,
                arena=arena,
                link=link,
                progress=progress,
            )
        link.ready()
        for ticket in link.messages():
            if not isinstance(ticket, SurveyWindow | SurveyGrid | LoadBigChunk):
                raise TypeError(f"a loader cannot do {type(ticket).__name__}")
            progress.slide = ticket.slide
            answered = answer(ticket)
            progress.slide = -1
            for slide, what, count in slides.news():
                link.send(SlideNote(slide, what, count))
            for slide, looked, refused in slides.looks.news():
                link.send(SlideLooked(slide, looked, refused))
            link.send(answered)


def _extracted(
    ticket: SurveyWindow | SurveyGrid | LoadBigChunk,
    extractor: Extractor,
    slides: OpenSlides,
    arena: Arena,
    link: Link,
    progress: Progress,
) -> Message:
    """The answer of the user's class."""
    if not isinstance(ticket, LoadBigChunk):
        raise TypeError(f"a loader of user classes cannot do {type(ticket).__name__}")
    started = time.perf_counter()
    link.recorder.enter(EXTRACT_BIGCHUNK, ticket.patient, ticket.ordinal)
    try:
        progress()
        read = extractor.extract(
            ticket, arena.slot(ticket.slot), partial(arena.reserve, ticket.slot)
        )
    except (SlideError, HookError) as error:
        if isinstance(error, SlideError) and error.may_pass:
            # Opened anew they may be read again.
            slides.close()
        # It cannot be opened, or has nothing to give: no other region of it will do either.
        whole = isinstance(error, NoTissueError) or (
            isinstance(error, SlideError) and error.level is None and ticket.slide >= 0
        )
        return LoadFailed(ticket.ordinal, ticket.attempt, ticket.slide, whole, Failure.of(error))
    except Recalled:
        left_out = Failure.of(progress.left_out())
        return LoadFailed(ticket.ordinal, ticket.attempt, ticket.slide, True, left_out)
    finally:
        link.recorder.leave()
    if not isinstance(read, BigChunkPx):
        return NothingLeft(ticket.ordinal, ticket.attempt)
    return _loaded(ticket, read, started)


def _loaded(ticket: LoadBigChunk, read: BigChunkPx, started: float) -> BigChunkLoaded:
    seconds = time.perf_counter() - started
    return BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, *read, seconds)


def _answer(
    ticket: SurveyWindow | SurveyGrid | LoadBigChunk,
    stream: StreamConfig,
    slides: OpenSlides,
    arena: Arena,
    progress: Progress,
) -> Message:
    usable = False
    ordinal, attempt = (
        (-1, 0) if isinstance(ticket, SurveyGrid) else (ticket.ordinal, ticket.attempt)
    )
    try:
        progress()
        slides.use(ticket.slide, partial(window_plan(stream).look, ticket=ticket))
        usable = True
        return slides.use(ticket.slide, partial(_done, ticket=ticket, stream=stream, arena=arena))
    except (SlideError, HookError) as error:
        return LoadFailed(ordinal, attempt, ticket.slide, not usable, Failure.of(error))
    except Recalled:
        return LoadFailed(ordinal, attempt, ticket.slide, True, Failure.of(progress.left_out()))


def _done(
    opened: OpenSlide,
    ticket: SurveyWindow | SurveyGrid | LoadBigChunk,
    stream: StreamConfig,
    arena: Arena,
) -> Message:
    plan = window_plan(stream)
    match ticket:
        case SurveyWindow():
            planned = plan.at(opened, ticket.ordinal, ticket.attempt, ticket.region)
            useful_px = survey_window(planned, ticket, stream)
            return WindowSurveyed(ticket.ordinal, ticket.attempt, useful_px)
        case SurveyGrid():
            planned = plan.at(opened, 0, 0)
            return GridSurveyed(ticket.slide, plan.counts(planned).tobytes())
        case LoadBigChunk():
            started = time.perf_counter()
            planned = plan.at(opened, ticket.ordinal, ticket.attempt, ticket.region)
            view = stream.bigchunk_layout.view(arena.slot(ticket.slot))
            read = load_bigchunk(planned, ticket, stream, ticket.slide, view)
            return _loaded(ticket, read, started)


def main() -> None:
    """Run the program."""
    serve("loader", work)
