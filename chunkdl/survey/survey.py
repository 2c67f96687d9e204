"""The survey of a dataset: what is in every slide, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from chunkdl.dataset.patients import Dataset
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.dataset.slide_table import slide_table
from chunkdl.engine.settings.annotation_source import annotation_source
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.checks import checked_float, checked_int
from chunkdl.engine.settings.configure import mask_cache_of, stream_config
from chunkdl.engine.settings.identity import hash_of, meant
from chunkdl.engine.settings.machine import cores
from chunkdl.engine.settings.setting import checked, identity
from chunkdl.engine.settings.users_code import check_can_be_sent, row_source
from chunkdl.errors import ConfigError
from chunkdl.slides.header_facts import KeptFacts, in_threads, pack_known
from chunkdl.slides.tissue.cache import default_folder
from chunkdl.slides.tissue.given import in_files
from chunkdl.survey.kept_looks import KeptLooks
from chunkdl.survey.look import Look, Problem
from chunkdl.survey.looking import Task
from chunkdl.survey.page import write_page
from chunkdl.survey.processes import looks
from chunkdl.survey.progress import ProgressLine
from chunkdl.survey.surveyed_slide import SurveyedSlide
from chunkdl.survey.table import write_table
from chunkdl.system.printing import printable

SETTINGS = (
    *("smallchunk_size", "mpp", "level", "downsample", "magnification", "resolution_policy"),
    *("max_relative_deviation", "tissue", "tissue_threshold", "pixel_filter", "annotations"),
    *("annotation_reading", "reader", "channels", "window", "icc", "mask_cache"),
)
"""Settings of a stream that decide what is found out about a slide."""
MOST_PROCESSES = 16
"""Unless more are asked for."""
SLIDE_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What is in the slides of a dataset, and what is wrong with them.

    It holds about 10 KiB a slide, most of it the pictures.

    Attributes:
        name: of the dataset.
        slides: in the order of the dataset.
        looked_at: number of slides that were looked at; the others were known from an earlier
            survey.
    """

    name: str
    slides: tuple[SurveyedSlide, ...]
    looked_at: int

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        *,
        processes: int | None = None,
        slide_timeout: float = SLIDE_TIMEOUT_S,
        progress: bool = True,
        **settings: Any,
    ) -> Self:
        """See `Dataset.survey`."""
        count = min(cores(), MOST_PROCESSES)
        if processes is not None:
            count = checked_int("processes", processes, 1, 1024)
        limit_s = checked_float("slide_timeout", slide_timeout, "seconds", None, 0)
        wrong = sorted(set(settings) - set(SETTINGS))
        if wrong:
            raise ConfigError(
                f"a survey has no setting {wrong[0]!r}; of a stream it has {', '.join(SETTINGS)}"
            )
        slides = slide_table(dataset, needs_files=False)
        survey = _Surveying(slides, checked(Arguments(**settings)))
        answers = survey.answers(count, limit_s, progress=progress)
        patients = [patient.name for patient in dataset]
        return cls(
            dataset.str_dsname,
            tuple(
                SurveyedSlide(patients[entry.patient], entry.path, entry.mpp, look)
                for entry, look in zip(slides, answers, strict=True)
            ),
            survey.looked_at,
        )

    @property
    def with_problems(self) -> tuple[SurveyedSlide, ...]:
        """The slides that have a problem."""
        return tuple(slide for slide in self.slides if slide.problems)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with one row a slide, UTF-8; `docs/survey.md` has its columns.

        Raises:
            OSError: it cannot be written.
        """
        write_table(Path(path), self.slides)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with a picture of every slide, which needs no other file and no network.

        Raises:
            OSError: it cannot be written.
        """
        write_page(Path(path), self.name, self.slides)


class _Surveying:
    """The making of one survey."""

    def __init__(self, slides: Sequence[SlideEntry], arguments: Arguments) -> None:
        self._slides = slides
        stream = stream_config(arguments, row_source(arguments))
        check_can_be_sent("pixel_filter", stream.pixel_filter)
        check_can_be_sent("tissue", stream.tissue)
        self._cache = mask_cache_of(arguments)
        source = annotation_source(slides, arguments)
        self._facts = KeptFacts(
            default_folder() if self._cache is None else self._cache, stream.reader, stream.pixels
        )
        about = hash_of([identity(meant(arguments, stream), "rows")])
        self._kept = KeptLooks(self._facts, about, source)
        masks = in_files([entry.tissue_mask for entry in slides], self._cache)
        given = zip(slides, masks, strict=True)
        entries = tuple(dataclasses.replace(entry, tissue_mask=mask) for entry, mask in given)
        self._task = Task(entries, stream, source, self._cache)
        self.looked_at = 0

    def answers(self, processes: int, limit_s: float, *, progress: bool) -> list[Look]:
        """What is found out about each slide, in their order."""
        keys, found = self._known()
        waiting = sorted(set(keys) - set(found))
        self.looked_at = len(waiting)
        line = ProgressLine(sys.stderr if progress else None, len(self._slides), len(found))
        problems = sum(bool(look.problems) for look in found.values())
        try:
            with closing(looks(self._task, waiting, processes, limit_s)) as answers:
                for index, look in answers:
                    # What was replaced while it was read is not kept as what it was before.
                    self._facts.forget_folders()
                    if self._key(index) == keys[index]:
                        self._kept.keep(keys[index], look)
                    found[index] = look
                    problems += bool(look.problems)
                    line.tell(len(found), problems)
        finally:
            line.end()
        stream = self._task.stream
        names = [entry.path for entry in self._slides]
        pack_known(names, stream.reader, self._cache, stream.pixels)
        return [found[index] for index in range(len(self._slides))]

    def _known(self) -> tuple[dict[int, bytes], dict[int, Look]]:
        """The keys of all slides whose files are there, and what needs no look, by index."""
        of_path: dict[str, list[int]] = {}
        for index, entry in enumerate(self._slides):
            of_path.setdefault(entry.path, []).append(index)
        keys: dict[int, bytes] = {}
        found: dict[int, Look] = {}

        def look(path: str) -> None:
            for index in of_path[path]:
                key = self._key(index)
                if isinstance(key, Look):
                    found[index] = key
                    continue
                keys[index] = key
                if (kept := self._kept.get(key)) is not None:
                    found[index] = kept

        # They wait for the file server together; each writes under indices of its own.
        in_threads(look, list(of_path))
        return keys, found

    def _key(self, index: int) -> bytes | Look:
        """Names the look at a slide, or says that its file is not there."""
        entry = self._slides[index]
        try:
            return self._kept.key(entry)
        except OSError as error:
            text = f"the file cannot be used: {error.strerror} [slide {printable(entry.path)}]"
            return Look(problems=(Problem("not opened", text),))
