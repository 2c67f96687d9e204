"""What a survey says of one slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chunkdl.slides.slide import SlideInfo
from chunkdl.survey.look import Look, Problem

MICRONS2_PER_MM2 = 1e6


@dataclass(frozen=True, slots=True)
class SurveyedSlide:
    """One slide of a survey.

    Attributes:
        patient: name of its patient.
        path: of the slide, with "#image=K" behind it where an image was chosen.
        given_mpp: microns per pixel of level 0 that the dataset says, as (x, y); None: nothing.
        look: all that was found.
    """

    patient: str
    path: str
    given_mpp: tuple[float, float] | None
    look: Look

    @property
    def info(self) -> SlideInfo | None:
        """The facts of the header; None: the slide could not be opened."""
        return self.look.info

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What keeps a stream from using the slide, or a part of it."""
        return self.look.problems

    @property
    def mpp(self) -> tuple[float, float] | None:
        """Microns per pixel of level 0 as (x, y), of the dataset or else of the file."""
        if self.given_mpp is not None or self.look.info is None:
            return self.given_mpp
        return self.look.info.mpp

    @property
    def tissue_mm2(self) -> float | None:
        """Area of the tissue, mm²; None where it or the microns per pixel are unknown."""
        return None if self.look.tissue_px is None else self._mm2(self.look.tissue_px)

    @property
    def tissue_share(self) -> float | None:
        """Share of the slide that is tissue, 0 to 1; None where it is unknown."""
        if self.look.tissue_px is None or self.look.info is None:
            return None
        first = self.look.info.levels[0]
        return self.look.tissue_px / (first.width * first.height)

    @property
    def annotated_mm2(self) -> Mapping[str, float] | None:
        """Area by class, mm²; None where there are no annotations, or the scale is unknown."""
        areas = self.look.annotated_px
        if areas is None or self.mpp is None:
            return None
        x, y = self.mpp
        return {name: area * x * y / MICRONS2_PER_MM2 for name, area in areas.items()}

    def _mm2(self, area_px: float) -> float | None:
        if self.mpp is None:
            return None
        return area_px * self.mpp[0] * self.mpp[1] / MICRONS2_PER_MM2
