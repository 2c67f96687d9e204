"""What the loaders tell of a pixel filter is counted for all, and told once for each slide."""

from __future__ import annotations

import logging

import pytest

from chunkdl.engine.decisions.events import FromConsumer, FromWorker
from chunkdl.engine.decisions.filter_shares import TOLD_AFTER, FilterShares
from chunkdl.engine.loader_statistics import LoaderStatistics, MeanDiversity, Told, counted_together
from chunkdl.errors import ProtocolError
from chunkdl.transport.protocol.engine_messages import Notice, SlideLooked
from tests.engine.decisions.test_core import HELLO, TWO_SLIDES, core_of, said


def test_the_share_of_a_slide_is_told_once_when_it_is_known() -> None:
    """Whichever loaders looked; as a warning where nearly nothing passes."""
    core = core_of(TWO_SLIDES, FromConsumer(HELLO))
    assert said(core.handle(FromWorker(0, SlideLooked(0, 600, 150)))) == []
    assert said(core.handle(FromWorker(1, SlideLooked(0, 400, 150)))) == [
        Notice(logging.INFO, "slide 0.tif: the pixel filter refuses 30.0% of it")
    ]
    assert said(core.handle(FromWorker(1, SlideLooked(0, 9000, 9000)))) == []
    assert said(core.handle(FromWorker(1, SlideLooked(1, 2000, 1990)))) == [
        Notice(logging.WARNING, "slide 1.tif: the pixel filter refuses 99.5% of it")
    ]


def test_statistics_have_the_share_of_all_slides() -> None:
    """Those of an engine that is gone are counted on."""
    core = core_of(TWO_SLIDES, FromConsumer(HELLO))
    for told in (SlideLooked(0, 10, 4), SlideLooked(1, 30, 6)):
        core.handle(FromWorker(0, told))
    now = core.statistics()
    assert (now.looked, now.refused) == (40, 10)
    assert LoaderStatistics.of(Told(now), MeanDiversity(), 0.0, 1.0, 0.0).refused_share == 0.25
    both = counted_together(Told().counters, now)
    assert (counted_together(now, both).looked, counted_together(now, both).refused) == (80, 20)
    together = Told.together([Told(now), Told(now)])
    assert (together.counters.looked, together.counters.refused) == (80, 20)
    assert LoaderStatistics.of(Told(), MeanDiversity(), 0.0, 1.0, 0.0).refused_share == 0.0


@pytest.mark.parametrize(("worker", "slide"), [(0, 2), (0, -1), (2, 0)])
def test_what_nobody_can_tell_of_a_slide_is_refused(worker: int, slide: int) -> None:
    """A slide that is not there, and a worker that reads none."""
    with pytest.raises(ProtocolError):
        core_of(TWO_SLIDES).handle(FromWorker(worker, SlideLooked(slide, 1, 0)))


def test_a_share_of_few_looks_is_not_told() -> None:
    """It would be chance."""
    shares = FilterShares()
    assert [shares.count(0, 1, 1) for _ in range(TOLD_AFTER)] == [None] * (TOLD_AFTER - 1) + [1.0]
