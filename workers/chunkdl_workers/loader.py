"""The loader: reads BigChunks from slides into slots.

Started as ``python -m chunkdl_workers.loader`` by the supervisor; knows one arena and the slides.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from chunkdl.config import ServiceConfig
from chunkdl.errors import Failure, HookError, NoTissueError, SlideError
from chunkdl.extracting import Extractor
from chunkdl.hooks import Exhausted
from chunkdl.loading import load_bigchunk, survey_window
from chunkdl.memory.arena import Arena
from chunkdl.memory.recorder import EXTRACT_BIGCHUNK
from chunkdl.open_slides import OpenSlides
from chunkdl.protocol.messages import (
    AnyMessage,
    BigChunkLoaded,
    GridSurveyed,
    LoadBigChunk,
    LoadFailed,
    Message,
    NothingLeft,
    SurveyGrid,
    SurveyWindow,
    WindowSurveyed,
)
from chunkdl.user_code import load_user_code
from chunkdl_workers.link import Link, bigchunk_arena, serve
from chunkdl_workers.process import one_thread_for_torch, yield_to_others


def work(link: Link, config: ServiceConfig, descriptors: list[int]) -> None:
    """Answer tickets until the coordinator is gone."""
    yield_to_others()
    arena = bigchunk_arena(descriptors[0], config)
    with OpenSlides(config.slides, config.stream, config.run.mask_cache) as slides, arena:
        if config.stream.rows == "hooks":
            user = load_user_code(config.user["loader"])
            one_thread_for_torch()
            extractor = Extractor(config, user, slides, link.log)
            for ticket in link.messages():
                link.send(_extracted(ticket, extractor, arena, link))
        for ticket in link.messages():
            link.send(_answer(ticket, config, slides, arena))


def _extracted(ticket: AnyMessage, extractor: Extractor, arena: Arena, link: Link) -> Message:
    """The answer of the user's class."""
    if not isinstance(ticket, LoadBigChunk):
        raise TypeError(f"a loader of user classes cannot do {type(ticket).__name__}")
    started = time.perf_counter()
    link.recorder.enter(EXTRACT_BIGCHUNK, ticket.patient, ticket.ordinal)
    try:
        decoded = extractor.extract(
            ticket, arena.slot(ticket.slot), partial(arena.reserve, ticket.slot)
        )
    except (SlideError, HookError) as error:
        # It cannot be opened, or has nothing to give: no other region of it will do either.
        whole = isinstance(error, NoTissueError) or (
            isinstance(error, SlideError) and error.level is None and ticket.slide >= 0
        )
        return LoadFailed(ticket.ordinal, ticket.attempt, ticket.slide, whole, Failure.of(error))
    finally:
        link.recorder.leave()
    if isinstance(decoded, Exhausted):
        return NothingLeft(ticket.ordinal, ticket.attempt)
    seconds = time.perf_counter() - started
    return BigChunkLoaded(ticket.ordinal, ticket.slot, ticket.generation, decoded, seconds)


def _answer(ticket: AnyMessage, config: ServiceConfig, slides: OpenSlides, arena: Arena) -> Message:
    if not isinstance(ticket, SurveyWindow | SurveyGrid | LoadBigChunk):
        raise TypeError(f"a loader cannot do {type(ticket).__name__}")
    usable = False
    try:
        planned = slides.get(ticket.slide)
        _ = planned.grid_windows if config.stream.grid else planned.positions
        usable = True
        match ticket:
            case SurveyWindow():
                area = survey_window(planned, ticket, config.stream)
                return WindowSurveyed(ticket.ordinal, ticket.attempt, area)
            case SurveyGrid():
                counts = np.array([len(w.draws.x) for w in planned.grid_windows], dtype=np.int32)
                return GridSurveyed(ticket.slide, counts.tobytes())
            case LoadBigChunk():
                started = time.perf_counter()
                view = config.stream.bigchunk_layout.view(arena.slot(ticket.slot))
                decoded = load_bigchunk(planned, ticket, config.stream, ticket.slide, view)
                seconds = time.perf_counter() - started
                return BigChunkLoaded(
                    ticket.ordinal, ticket.slot, ticket.generation, decoded, seconds
                )
    except SlideError as error:
        ordinal, attempt = (
            (-1, 0) if isinstance(ticket, SurveyGrid) else (ticket.ordinal, ticket.attempt)
        )
        return LoadFailed(ordinal, attempt, ticket.slide, not usable, Failure.of(error))


if __name__ == "__main__":
    serve("loader", work)
