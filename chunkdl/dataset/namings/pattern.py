"""Names of the user's own data set, by a regular expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from chunkdl.dataset.labels import refusal
from chunkdl.dataset.namings.naming import NamedSlide
from chunkdl.errors import DatasetError
from chunkdl.slides.suffixes import stem


@dataclass(frozen=True, slots=True)
class NamePattern:
    r"""Slides whose names fit a regular expression with named groups, as Python's `re` has them.

    ``NamePattern(r"(?P<patient>S\d+)_(?P<stain>HE|IHC)")`` reads "S12_HE.svs". The group `patient`
    is the patient; every other named group is a label of the slide, as text, and None where the
    group took no part.

    Attributes:
        pattern: that the whole name must fit.
        of: "name", the name of the file without its suffix, or "path", the whole absolute path with
            folders and suffix; begin the pattern with ``.*/`` then.

    Raises:
        DatasetError: it is no regular expression, has no group `patient`, or a group that cannot be
            a label.
    """

    pattern: str
    of: Literal["name", "path"] = "name"

    def __post_init__(self) -> None:
        if self.of not in ("name", "path"):
            raise DatasetError(f"of={self.of!r:.80} must be 'name' or 'path'")
        try:
            groups = re.compile(self.pattern).groupindex
        except (re.error, TypeError) as error:
            raise DatasetError(
                f"{self.pattern!r:.200} is no regular expression: {error}"
            ) from error
        if "patient" not in groups:
            raise DatasetError(
                f"{self.pattern!r:.200} has no group 'patient'; write the part that names the "
                "patient as (?P<patient>…)"
            )
        for name in groups:
            if name != "patient" and refusal(name):
                raise DatasetError(f"{self.pattern!r:.200}: {refusal(name)}")

    def read(self, path: str) -> NamedSlide | None:
        """See `chunkdl.dataset.namings.naming.Naming`."""
        found = re.fullmatch(self.pattern, stem(path) if self.of == "name" else path)
        if found is None:
            raise DatasetError(f"the {self.of} does not fit {self.pattern!r:.200}")
        labels = found.groupdict()
        patient = labels.pop("patient")
        if not patient:
            raise DatasetError(f"the group 'patient' of {self.pattern!r:.200} is empty")
        return NamedSlide(patient, of_slide=labels)
