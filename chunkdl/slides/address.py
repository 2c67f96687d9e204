"""How a slide is named: a path, and which of several images in the file."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_CHOICE = re.compile(r"(?P<path>.+)#image=(?P<image>0|[1-9][0-9]{0,5})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SlideAddress:
    """One slide.

    Attributes:
        path: the file, or the folder of a DICOM slide.
        image: which of its images, None where the file has one.
    """

    path: str
    image: int | None = None

    def __str__(self) -> str:
        return self.path if self.image is None else f"{self.path}#image={self.image}"


def parse_address(name: str | os.PathLike[str]) -> SlideAddress:
    """The slide that a name stands for: "slide.tif" or "slide.tif#image=1".

    A file whose own name ends like a choice is that file.
    """
    text = os.fspath(name)
    found = _CHOICE.fullmatch(text)
    if found is None or os.path.lexists(text):
        return SlideAddress(text)
    return SlideAddress(found["path"], int(found["image"]))
