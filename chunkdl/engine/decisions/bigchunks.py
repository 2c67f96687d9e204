"""What the loaders do: which BigChunk is read next, into which slot, and what replaces a bad one.

BigChunks are loaded in the order of their ordinals, which is the order in which they are needed.
"""

from __future__ import annotations

import logging
from collections import deque

import numpy as np
import numpy.typing as npt

from chunkdl.engine.decisions.blame import SlideBlame
from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.events import WorkerLost
from chunkdl.engine.decisions.failures import (
    MAX_DEATHS,
    MAX_SUBSTITUTES,
    WITHOUT_POSITIONS,
    barren,
    lost_slide,
    missing_slide,
    no_slide_left,
    no_slide_of_group,
    quarantine,
    too_many_substitutes,
)
from chunkdl.engine.decisions.outbox import Outgoing
from chunkdl.engine.decisions.patient_choice import PatientChoice
from chunkdl.engine.decisions.restarts import BLAME_OF_OUTSIDER
from chunkdl.engine.decisions.slide_choice import Sources
from chunkdl.engine.decisions.tickets import Answer, BigChunkState, Ticket, answers, slot_lease
from chunkdl.errors import Failure, ProtocolError
from chunkdl.sampling.reuse import SURVEYED_WINDOWS, calls_for_reuse
from chunkdl.sampling.streams import Stream
from chunkdl.transport.memory.slots import Lease, SlotLedger
from chunkdl.transport.protocol.engine_messages import (
    BigChunkLoaded,
    LoadBigChunk,
    Recall,
    SurveyGrid,
    SurveyWindow,
)

TICKETS_PER_LOADER = 2
"""One being read and one waiting, so that a loader never idles over a message's way."""


class BigChunks:
    """The BigChunks in memory and the tickets of the loaders.

    Args:
        config: fixed facts.
        sources: what each BigChunk is read from.
        outgoing: where tickets and notes go.
    """

    def __init__(self, config: CoreConfig, sources: Sources, outgoing: Outgoing) -> None:
        self._config = config
        self.sources = sources
        """What each BigChunk is read from."""
        self._places = sources.places
        self._blame = SlideBlame()
        self._reopen: list[int] = []
        self._outgoing = outgoing
        self._stream: Stream | None = None
        self._tickets: list[deque[Ticket]] = [deque() for _ in range(config.loaders)]
        self._again: list[Ticket] = []
        self._orphans: set[Lease] = set()
        self._grid_counts: dict[int, npt.NDArray[np.int32]] = {}
        self._surveys: dict[int, int] = {}
        self._survey_next = 0
        self._next_load = 0
        self.slots = SlotLedger(config.bigchunk_slots)
        self.bigchunks: dict[int, BigChunkState] = {}
        """By ordinal, those that have a slot."""
        self.dropped: set[int] = set()
        """Windows of a grid that cannot be read."""
        self._dropped_in_a_row = 0
        self.substitutions = 0
        self.loaded = 0
        self.decoded_px = 0
        self.target_px = 0
        self.read_s = 0.0

    def begin(self, stream: Stream) -> None:
        """Load for this stream from now on."""
        self.dropped.clear()
        self._stream = stream
        self._next_load = stream.first_ordinal

    def free(self) -> None:
        """What is left at the end of a pass holds rows of the short batch that was left out."""
        for bigchunk in self.bigchunks.values():
            if bigchunk.ready:
                self.slots.release(bigchunk.lease)
            else:
                self._orphans.add(bigchunk.lease)
        self.bigchunks.clear()

    # ------------------------------------------------------------------- answers

    def take_back(self, worker: int, answer: Answer) -> Ticket:
        """The worker answered its oldest ticket."""
        tickets = self._tickets[worker] if worker < self._config.loaders else ()
        if not tickets or not answers(answer, tickets[0]):
            raise ProtocolError(f"worker {worker} answered a ticket that it does not have")
        self._blame.answered(tickets[0])
        return self._tickets[worker].popleft()

    def window_surveyed(self, ordinal: int, useful_px: int) -> None:
        """A planned window's useful area is known."""
        if not 0 < useful_px <= self._config.stream.bigchunk_px**2:
            raise ProtocolError(f"the window of BigChunk {ordinal} has {useful_px} useful pixels")
        self._surveys[ordinal] = useful_px

    def grid_surveyed(self, slide: int, counts: npt.NDArray[np.int32]) -> None:
        """The positions of each window of a slide are known."""
        self._grid_counts[slide] = counts

    def take_in(self, message: BigChunkLoaded) -> bool:
        """A BigChunk is in its slot; False: nobody needs it any more, the slot is free again."""
        lease = Lease(message.slot, message.generation)
        self.decoded_px += message.decoded_px
        self.target_px += message.target_px
        self.read_s += message.read_s
        self.slots.publish(lease)
        if lease in self._orphans:
            self._orphans.remove(lease)
            self.slots.release(lease)
            return False
        self.loaded += 1
        self._dropped_in_a_row = 0
        self.bigchunks[message.ordinal].ready = True
        return True

    def use(self, ordinal: int, rows: int) -> None:
        """Rows were cut from a BigChunk; with the last one its slot becomes free."""
        bigchunk = self.bigchunks[ordinal]
        bigchunk.uses -= rows
        if bigchunk.uses == 0:
            self.slots.release(bigchunk.lease)
            del self.bigchunks[ordinal]
            if self._places is not None:
                self._places.close(ordinal)

    def is_dropped(self, ordinal: int) -> bool:
        """Whether the rows of a BigChunk are left out: it cannot be read, or the stream is over."""
        if ordinal in self.dropped:
            return True
        places = self._places
        if places is None or not places.halted:
            return False
        return ordinal >= self._next_load and not places.expects(ordinal)

    def is_current(self, ordinal: int, attempt: int) -> bool:
        """Whether that is the attempt at a BigChunk that serves now."""
        bigchunk = self.bigchunks.get(ordinal)
        return bigchunk is not None and bigchunk.attempt == attempt and bigchunk.ready

    def over_before(self, batch: int) -> bool:
        """Whether the policy has ended the stream and no BigChunk has rows in `batch` or later."""
        stream, places = self._stream, self._places
        halted = places is not None and places.halted and not places.expects(self._next_load)
        if not halted or stream is None:
            return False
        return all(stream.last_batch(ordinal) < batch for ordinal in self.bigchunks)

    def check_missing(self) -> None:
        """End a stream that cannot be planned as it was: a slide gave rows before, and none now."""
        slide = None if self._stream is None else self._stream.missing
        if slide is not None:
            why = self.sources.unusable.get(slide)
            self._outgoing.fail(missing_slide(self._config.slides[slide], why))

    @property
    def idle(self) -> bool:
        """Whether no loader has anything to do."""
        return not self._again and not any(self._tickets)

    # -------------------------------------------------------------------- faults

    def over(self, worker: int) -> str:
        """What a loader has in hand, for people; empty: nothing, or it is not a loader."""
        tickets = self._tickets[worker] if worker < self._config.loaders else ()
        return f"over {self.sources.name(tickets[0])}, " if tickets else ""

    def loader_lost(self, loss: WorkerLost) -> None:
        """Its tickets are given to others; what it had in hand may be to blame."""
        tickets, self._tickets[loss.worker] = self._tickets[loss.worker], deque()
        if tickets:
            first, late = tickets[0], loss.failure
            if late is not None and isinstance(first, LoadBigChunk) and self._is_live(first):
                tickets.popleft()
                self.unreadable(first, late)
            elif self._is_guilty(first, loss):
                tickets.popleft()
                why = quarantine(self._named(first), loss.reason)
                self.unreadable(first, why, whole_slide=first.slide >= 0)
        self._again.extend(tickets)

    def _is_live(self, ticket: LoadBigChunk) -> bool:
        """Whether somebody still needs what a ticket asks for."""
        bigchunk = self.bigchunks.get(ticket.ordinal)
        return bigchunk is not None and bigchunk.lease == slot_lease(ticket)

    def _is_guilty(self, ticket: Ticket, loss: WorkerLost) -> bool:
        """Whether the loaders that died over a ticket, with this one, are too many."""
        if ticket.slide >= 0:
            # What waits of a slide that is left out already is found when it is given out.
            died = self._blame.died(ticket, loss)
            return died and ticket.slide not in self.sources.unusable
        if not isinstance(ticket, LoadBigChunk) or not self._is_live(ticket):
            return False
        bigchunk = self.bigchunks[ticket.ordinal]
        bigchunk.deaths += 1 if loss.by_itself else BLAME_OF_OUTSIDER
        return bigchunk.deaths >= MAX_DEATHS

    def _named(self, ticket: Ticket) -> str:
        name = self.sources.name(ticket)
        if ticket.slide >= 0 or not isinstance(ticket, LoadBigChunk):
            return name
        return f"BigChunk {ticket.ordinal} of {name}"

    def unreadable(self, ticket: Ticket, failure: Failure, *, whole_slide: bool = False) -> None:
        """Replace what a ticket asked for, or end the stream."""
        if self._raises(failure):
            self._outgoing.fail(failure)
            return
        if whole_slide and self._is_of_class(ticket, failure):
            self._leave_out_class(ticket, failure)
            return
        if whole_slide and self._cannot_spare(ticket, failure):
            self._outgoing.fail(lost_slide(failure))
            return
        if whole_slide and ticket.slide not in self.sources.unusable:
            self._outgoing.note(logging.WARNING, f"slide left out: {failure.message}")
            if not self.sources.rule_out(ticket, failure):
                self._outgoing.fail(no_slide_left(len(self._config.slides), failure))
                return
            if (lost := self.sources.lost_group()) is not None:
                self._outgoing.fail(no_slide_of_group(lost, failure))
                return
            self._recall(ticket.slide)
        elif not whole_slide:
            self._outgoing.note(logging.WARNING, f"region left out: {failure.message}")
        self._leave_out(ticket, failure)

    def _is_of_class(self, ticket: Ticket, failure: Failure) -> bool:
        """Whether a slide lacks a position only in the class that was chosen."""
        chosen = not isinstance(ticket, SurveyGrid) and ticket.region >= 0
        return chosen and failure.kind in WITHOUT_POSITIONS

    def _leave_out_class(self, ticket: Ticket, failure: Failure) -> None:
        if not self.sources.is_ruled_out(ticket):
            self._outgoing.note(logging.WARNING, f"class of a slide left out: {failure.message}")
        self.sources.rule_out_region(ticket)
        if (lost := self.sources.lost_group()) is not None:
            self._outgoing.fail(no_slide_of_group(lost, failure))
            return
        self._leave_out(ticket, failure)

    def _cannot_spare(self, ticket: Ticket, failure: Failure) -> bool:
        """Whether all rows behind would be others without the slide of a ticket.

        Without replacement each row follows from the positions of all slides. One without tissue
        has none, whoever looks.
        """
        has_none = isinstance(ticket, SurveyGrid) and failure.kind in WITHOUT_POSITIONS
        return not self._config.stream.replacement and not has_none

    def _recall(self, slide: int) -> None:
        """Others may wait for the mask of a slide, or have it next."""
        for loader, tickets in enumerate(self._tickets):
            if any(ticket.slide == slide for ticket in tickets):
                self._outgoing.tell(loader, Recall(slide))

    def _leave_out(self, ticket: Ticket, failure: Failure) -> None:
        match ticket:
            case SurveyGrid():
                self._grid_counts[ticket.slide] = np.empty(0, dtype=np.int32)
            case LoadBigChunk() if self._stream is not None and not self._stream.may_replace:
                self._drop(ticket, failure)
            case LoadBigChunk() if self._places is not None:
                self._replace(ticket.ordinal, failure, self._places)
            case SurveyWindow() | LoadBigChunk():
                self._substitute(ticket.ordinal, ticket.attempt + 1, failure)

    def _raises(self, failure: Failure) -> bool:
        of_user = bool(failure.hook)
        return (self._config.on_hook_error if of_user else self._config.on_error) == "raise"

    def nothing_left(self, ticket: LoadBigChunk) -> None:
        """The user's class says that the patient has no more BigChunks."""
        if self._places is None:
            raise ProtocolError("a patient was finished in a stream without places")
        self._places.finish(ticket.patient)
        self._places.forget(ticket.ordinal)
        self._load_anew(ticket.ordinal)

    def ended(self, ordinal: int, attempt: int, call: int, failure: Failure | None) -> None:
        """A collector got no more out of a BigChunk: another one takes over its place.

        Args:
            ordinal, attempt: of the BigChunk; one that was replaced already is no news.
            call: the first that it did not serve.
            failure: what the user's code raised; None: the BigChunk is exhausted.
        """
        bigchunk = self.bigchunks.get(ordinal)
        if bigchunk is None or bigchunk.attempt != attempt or not bigchunk.ready:
            return
        replaces = self._stream is None or self._stream.may_replace
        if failure is not None and (self._raises(failure) or not replaces):
            # On a grid nothing else can take the place of a position.
            self._outgoing.fail(failure)
            return
        served, bigchunk.first = call > bigchunk.first, call
        self.slots.release(bigchunk.lease)
        if (lease := self.slots.acquire()) is None:
            raise ProtocolError("a slot that was just freed cannot be acquired")
        bigchunk.lease, bigchunk.ready = lease, False
        if failure is not None:
            self._outgoing.note(logging.WARNING, f"BigChunk left out: {failure.message}")
        if self._places is not None:
            if served:
                bigchunk.barren = 0
            if failure is None and served:
                # The next BigChunk of the same patient.
                self._load_anew(ordinal)
            else:
                self._replace(ordinal, failure or barren(ordinal), self._places)
        elif failure is not None:
            self._substitute(ordinal, bigchunk.attempt + 1, failure)

    def blame(self, ordinal: int, call: int, reason: str, late: Failure | None) -> None:
        """A collector died over the user's code for this BigChunk, the first call not served."""
        bigchunk = self.bigchunks.get(ordinal)
        if bigchunk is None or not bigchunk.ready:
            return
        bigchunk.deaths += 1
        if late is not None or bigchunk.deaths >= MAX_DEATHS:
            name = f"BigChunk {ordinal} of {self.sources.patient_name(ordinal)}"
            why = quarantine(name, reason)
            self.ended(ordinal, bigchunk.attempt, call, late or why)

    def _replace(self, ordinal: int, failure: Failure, places: PatientChoice) -> None:
        """The policy chooses another patient for the place of a BigChunk that gave nothing."""
        bigchunk = self.bigchunks[ordinal]
        bigchunk.barren += 1
        if bigchunk.barren > MAX_SUBSTITUTES:
            self._outgoing.fail(too_many_substitutes(failure))
            return
        self.substitutions += 1
        places.give_away(ordinal)
        self._load_anew(ordinal)

    def _load_anew(self, ordinal: int) -> None:
        bigchunk = self.bigchunks[ordinal]
        bigchunk.attempt += 1
        bigchunk.deaths = 0.0
        self._reopen.append(ordinal)

    def _drop(self, ticket: LoadBigChunk, failure: Failure) -> None:
        """The rows of a grid window that cannot be read are left out."""
        self.substitutions += 1
        self._dropped_in_a_row += 1
        if self._dropped_in_a_row > MAX_SUBSTITUTES and self._is_endless:
            # Else the stream would go on for ever without a row.
            self._outgoing.fail(too_many_substitutes(failure))
            return
        lease = slot_lease(ticket)
        self.slots.abandon(lease)
        if lease in self._orphans:
            self._orphans.remove(lease)
            return
        del self.bigchunks[ticket.ordinal]
        self.dropped.add(ticket.ordinal)

    @property
    def _is_endless(self) -> bool:
        return self._stream is not None and not self._stream.has_passes

    def _substitute(self, ordinal: int, attempt: int, failure: Failure) -> None:
        """Another slide takes the place of an unreadable BigChunk, chosen by the plan."""
        if attempt > MAX_SUBSTITUTES:
            self._outgoing.fail(too_many_substitutes(failure))
            return
        self.substitutions += 1
        self.sources.substitute(ordinal, attempt)
        if self._stream is None:
            self._again.append(self.sources.survey(ordinal))
        else:
            self.bigchunks[ordinal].deaths = 0.0
            self._again.append(self._load_ticket(ordinal))

    # ------------------------------------------------------------------- tickets

    def assign(self, ready: list[bool], next_batch: int) -> None:
        """Give work to the loaders that are ready, the least busy first.

        Args:
            ready: by worker, whether it takes tickets.
            next_batch: the batch that is planned next, whose rows have to become known.
        """
        while True:
            free = [
                loader
                for loader in range(self._config.loaders)
                if ready[loader] and len(self._tickets[loader]) < TICKETS_PER_LOADER
            ]
            ticket = self._next_ticket(next_batch) if free else None
            if ticket is None:
                return
            loader = min(free, key=lambda number: len(self._tickets[number]))
            self._tickets[loader].append(ticket)
            self._outgoing.tell(loader, ticket)

    def settled_calls(self) -> int | None:
        """The SmallChunks per BigChunk for the wished reuse, once enough windows are known."""
        if len(self._surveys) < SURVEYED_WINDOWS:
            return None
        return calls_for_reuse(self._config.stream, self._surveys.values())

    def _next_ticket(self, next_batch: int) -> Ticket | None:
        """The most urgent work for a loader, None when there is nothing to do."""
        while (ticket := self._wanted(next_batch)) is not None:
            why = self.sources.unusable.get(ticket.slide)
            if why is None:
                return ticket
            self._leave_out(ticket, why)
            if self._outgoing.failure is not None:
                return None
        return None

    def _wanted(self, next_batch: int) -> Ticket | None:
        """The most urgent ticket, whether its slide can be used or not."""
        if self._again:
            return self._again.pop(0)
        if self._stream is None:
            if self._survey_next == SURVEYED_WINDOWS:
                return None
            self._survey_next += 1
            return self.sources.survey(self._survey_next - 1)
        if survey := self._grid_survey(self._stream, next_batch):
            return survey
        if self._places is not None and (ticket := self._reopened(self._places)):
            return ticket
        self._next_load = max(self._next_load, self._stream.first_ordinal)
        while self._stream.has(self._next_load):
            ordinal = self._next_load
            uses = self._stream.uses(ordinal)
            if uses == 0:
                self._next_load += 1
                continue
            if not self.sources.may_open(ordinal, self.bigchunks, self._stream, next_batch):
                return None
            lease = self.slots.acquire()
            if lease is None:
                return None
            self._next_load += 1
            self.bigchunks[ordinal] = BigChunkState(lease, uses)
            return self._load_ticket(ordinal)
        return None

    def _reopened(self, places: PatientChoice) -> Ticket | None:
        """The ticket for the first BigChunk whose place can be filled anew."""
        for ordinal in tuple(self._reopen):
            bigchunk = self.bigchunks[ordinal]
            if self.sources.may_reopen(ordinal, bigchunk, places):
                self._reopen.remove(ordinal)
                return self._load_ticket(ordinal)
            if places.halted:
                self._reopen.remove(ordinal)
                self.slots.abandon(bigchunk.lease)
                del self.bigchunks[ordinal]
                self.dropped.add(ordinal)
        return None

    def _grid_survey(self, stream: Stream, next_batch: int) -> SurveyGrid | None:
        """The next slide to look at, while a batch is short of rows or few windows are left."""
        while True:
            while stream.unsurveyed and stream.unsurveyed[0] in self._grid_counts:
                stream.add(self._grid_counts[stream.unsurveyed[0]].tolist())
            if not stream.unsurveyed:
                return None
            ahead = max(self._next_load, stream.first_ordinal) + self._config.bigchunk_slots
            if stream.has(ahead - 1) and stream.knows(next_batch):
                return None
            # Planning may have come to a slide that was looked at ahead of its turn.
            if stream.unsurveyed[0] not in self._grid_counts:
                break
        asked = {t.slide for tickets in self._tickets for t in tickets if isinstance(t, SurveyGrid)}
        for slide in stream.unsurveyed[: self._config.loaders]:
            if slide not in asked and slide not in self._grid_counts:
                return SurveyGrid(slide)
        return None

    def _load_ticket(self, ordinal: int) -> LoadBigChunk:
        if self._stream is None:
            raise ProtocolError("a BigChunk was to be loaded before the stream is settled")
        return self.sources.load(ordinal, self.bigchunks[ordinal], self._stream)
