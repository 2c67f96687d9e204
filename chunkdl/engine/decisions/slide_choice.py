"""What each BigChunk is read from: its patient and its slide, past those that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable

from chunkdl.engine.decisions.core_config import CoreConfig
from chunkdl.engine.decisions.patient_choice import PatientChoice
from chunkdl.engine.decisions.tickets import BigChunkState, Ticket
from chunkdl.errors import Failure
from chunkdl.sampling.cursor import Opening
from chunkdl.sampling.schedule import UniformSchedule, slide_of
from chunkdl.sampling.strata import NO_REGION, Stratum, StratumSchedule
from chunkdl.sampling.streams import Source, Stream
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyGrid, SurveyWindow

CHOSEN_AHEAD_BATCHES = 1000
"""A BigChunk that begins further ahead gets no patient yet. Where each goes on until it is
exhausted it would keep one from the places that are open now, and its turn would never come."""


class Sources:
    """The patients and slides of a stream.

    Args:
        config: fixed facts.
        attempts: substitutions from before, by ordinal.
        places: where a policy chooses the patients, else None.
    """

    def __init__(
        self, config: CoreConfig, attempts: dict[int, int], places: PatientChoice | None
    ) -> None:
        self._config = config
        self._schedule = UniformSchedule(config.stream.seed, config.slides_of_patient)
        groups, seed = config.groups, config.stream.seed
        self._strata = StratumSchedule(seed, groups) if groups else None
        self._empty: set[tuple[int, int]] = set()
        """Slides without a position in a class that is annotated on them."""
        self._before: dict[int, Opening] = {}
        self.places = places
        self._attempts = attempts
        """With which attempt a BigChunk is read, where it is not the first and no policy chose."""
        self.unusable: dict[int, Failure] = {}
        """Slides that are left out, and why."""

    def name(self, ticket: Ticket) -> str:
        """What a ticket is about, for people."""
        if ticket.slide >= 0:
            return f"slide {self._config.slides[ticket.slide]}"
        patient = ticket.patient if isinstance(ticket, LoadBigChunk) else 0
        return f"patient {self._config.patients[patient]}"

    def patient_name(self, ordinal: int) -> str:
        """The patient of a BigChunk whose patient was chosen, for people."""
        patient = None if self.places is None else self.places.patient_of(ordinal)
        return "the plan" if patient is None else f"patient {self._config.patients[patient]}"

    def rule_out(self, ticket: Ticket, why: Failure) -> bool:
        """Leave out the slide of a ticket; False: it was the last one."""
        if ticket.slide >= 0:
            self.unusable[ticket.slide] = why
        if len(self.unusable) == len(self._config.slides):
            return False
        if self.places is not None and isinstance(ticket, LoadBigChunk):
            slides = self._config.slides_of_patient[ticket.patient]
            if all(slide in self.unusable for slide in slides):
                # A patient without a usable slide is not chosen again.
                self.places.finish(ticket.patient)
        return True

    def rule_out_region(self, ticket: Ticket) -> None:
        """Leave out the class of a ticket in its slide."""
        if not isinstance(ticket, SurveyGrid):
            self._empty.add((ticket.slide, ticket.region))

    def lost_group(self) -> str | None:
        """The name of a group that has a weight and no slide that can be used; None: there is no
        such group."""
        if self._strata is None:
            return None
        for index, group in enumerate(self._strata.groups):
            if not self._has_group(index):
                return group.name
        return None

    def _has_group(self, group: int) -> bool:
        return self._strata is None or any(map(self._is_usable, self._strata.strata_of(group)))

    def is_ruled_out(self, ticket: Ticket) -> bool:
        """Whether the class of a ticket was left out in its slide."""
        if isinstance(ticket, SurveyGrid):
            return False
        return (ticket.slide, ticket.region) in self._empty

    def substitute(self, ordinal: int, attempt: int) -> None:
        """Read a BigChunk with this attempt from now on."""
        self._attempts[ordinal] = attempt

    def substitutions(self, stream: Stream) -> dict[int, int]:
        """By ordinal, the attempts that are not the first; of a stream without replacement the
        slides that are left out: what a resume has to know."""
        return dict(self._attempts if stream.may_replace else stream.left_out)

    def forget_before(self, batch: int, stream: Stream) -> None:
        """Forget the attempts at BigChunks that no batch after this one has rows of."""
        if stream.may_replace:
            for ordinal in tuple(self._attempts):
                if stream.last_batch(ordinal) <= batch:
                    del self._attempts[ordinal]

    def survey(self, ordinal: int) -> SurveyWindow:
        """The ticket to survey a planned window."""
        chosen, attempt = self._planned(ordinal)
        return SurveyWindow(ordinal, attempt, chosen.slide, chosen.region)

    def may_open(
        self,
        ordinal: int,
        live: Iterable[int],
        stream: Stream,
        next_batch: int,
    ) -> bool:
        """Whether a BigChunk has its patient, and that patient is free for it.

        Args:
            ordinal: of the BigChunk.
            live: the BigChunks in memory.
            stream: that it belongs to.
            next_batch: the batch that is planned next.
        """
        places = self.places
        if places is None:
            return True
        if stream.first_batch(ordinal) > next_batch + CHOSEN_AHEAD_BATCHES:
            return False
        if not places.knows(ordinal):
            before = places.resumed(ordinal, stream.next_call(ordinal))
            if before is not None:
                self._before[ordinal] = before
                places.keep(ordinal, before.patient)
        patient = places.patient(ordinal, 0)
        if patient is None or not self._config.stream.one_load_per_patient:
            return patient is not None
        over = ordinal - self._config.stream.num_bigchunks
        return not any(other <= over and places.patient_of(other) == patient for other in live)

    def may_reopen(self, ordinal: int, bigchunk: BigChunkState, places: PatientChoice) -> bool:
        """Whether the place of a BigChunk that was replaced has its patient."""
        before = places.resumed_next(ordinal, bigchunk.attempt, bigchunk.first)
        if before is not None:
            self._before[ordinal] = before
            places.keep(ordinal, before.patient)
        return places.patient(ordinal, bigchunk.attempt) is not None

    def load(self, ordinal: int, bigchunk: BigChunkState, stream: Stream) -> LoadBigChunk:
        """The ticket to load a BigChunk that may open."""
        lease = bigchunk.lease
        if self.places is not None:
            return self._chosen(ordinal, bigchunk, stream, self.places)
        source, attempt, region = stream.source(ordinal), 0, -1
        if source is None:
            chosen, attempt = self._planned(ordinal)
            region = chosen.region
            source = Source(chosen.slide, -1, stream.calls)
        bigchunk.attempt = attempt
        return LoadBigChunk(
            ordinal,
            attempt,
            source.slide,
            source.window,
            source.calls,
            lease.slot,
            lease.generation,
            cycle=source.cycle,
            first=source.first,
            region=region,
        )

    def _chosen(
        self, ordinal: int, bigchunk: BigChunkState, stream: Stream, places: PatientChoice
    ) -> LoadBigChunk:
        first = bigchunk.first if bigchunk.attempt else stream.first_call(ordinal)
        opening = places.opened(ordinal, bigchunk.attempt, first, self._before.pop(ordinal, None))
        bigchunk.attempt, bigchunk.first = opening.attempt, opening.first
        every = self._config.slides_of_patient[opening.patient]
        usable = [slide for slide in every if slide not in self.unusable] or every
        seed, attempt = self._config.stream.seed, opening.attempt
        return LoadBigChunk(
            ordinal,
            attempt,
            slide_of(seed, usable, ordinal, attempt) if usable else -1,
            -1,
            stream.calls,
            bigchunk.lease.slot,
            bigchunk.lease.generation,
            opening.patient,
            opening.message,
            opening.checkpoint,
        )

    def _planned(self, ordinal: int) -> tuple[Stratum, int]:
        """Slide, class and attempt of a BigChunk in closed form."""
        attempt = self._attempts.get(ordinal, 0)
        while not self._is_usable(chosen := self._stratum(ordinal, attempt)):
            if not self._has_group(chosen.group):
                break  # the stream has failed
            attempt += 1
        if attempt:
            self._attempts[ordinal] = attempt
        return chosen, attempt

    def _stratum(self, ordinal: int, attempt: int) -> Stratum:
        if self._strata is None:
            return Stratum(self._schedule.slide(ordinal, attempt), NO_REGION)
        return self._strata.stratum(ordinal, attempt)

    def _is_usable(self, stratum: Stratum) -> bool:
        return stratum.slide not in self.unusable and stratum[:2] not in self._empty
