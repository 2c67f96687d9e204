"""What one look at a slide finds, as a value that is sent, kept and shown."""

from __future__ import annotations

from typing import Literal

import msgspec

from chunkdl.slides.slide import SlideInfo

Kind = Literal[
    "not opened",
    "crash",
    "no answer",
    "not read",
    "own code",
    "annotations",
    "given mask",
    "no tissue",
    "resolution",
]
"""What is wrong with a slide, in the order in which problems are shown."""
OF_THE_SLIDE: tuple[Kind, ...] = ("no tissue", "resolution")
"""These are found by a look that went well; the others may be over when the slide is looked at
again."""


class Problem(msgspec.Struct, frozen=True):
    """Something that keeps a stream from using the slide, or a part of it.

    Attributes:
        kind: of it.
        text: what a stream would say.
    """

    kind: Kind
    text: str


class Look(msgspec.Struct, frozen=True):
    """What was found out about one slide.

    Attributes:
        info: the facts of the header, without the path; None: it could not be opened.
        file_bytes: size of the file that the path names; of a DICOM slide it is one of several.
            None: nobody knows.
        format: kind of the file, which names the vendor, such as "Aperio SVS"; empty where nothing
            is known.
        stored_as: how the pixels of level 0 are stored, such as "JPEG, 3 x 8 bit, tiles of
            256x256"; empty where nothing is known.
        regions_read: number of regions that were read to see whether they can be.
        regions_unreadable: of these, those that cannot be.
        tissue_px: area of the tissue, level-0 pixels; None: it could not be found.
        annotated_px: area by class, level-0 pixels, 0 for a class of points; overlapping shapes
            count each. None: there are no annotations.
        problems: what is wrong.
        notes: what a user has to know, each a sentence.
        picture: JPEG of the slide; empty where there is none.
    """

    info: SlideInfo | None = None
    file_bytes: int | None = None
    format: str = ""
    stored_as: str = ""
    regions_read: int = 0
    regions_unreadable: int = 0
    tissue_px: float | None = None
    annotated_px: dict[str, float] | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    picture: bytes = b""

    @property
    def failed(self) -> bool:
        """Whether it has to be done again: something of the slide could not be looked at."""
        return any(problem.kind not in OF_THE_SLIDE for problem in self.problems)


# Made once: msgspec learns a class when it first reads one, and two threads that make it learn the
# same class at a time end the process.
DECODER = msgspec.msgpack.Decoder(Look)


def encoded(look: Look) -> bytes:
    """As `DECODER` reads it; all texts are printable."""
    return msgspec.msgpack.encode(look)
