"""The slides at the paths that a user gave: files and folders, each slide once."""

from __future__ import annotations

import os
from collections.abc import Iterable

from chunkdl.dataset.tables import refuse
from chunkdl.errors import DatasetError
from chunkdl.slides.search import same_slides, slides_at
from chunkdl.slides.suffixes import SLIDE_SUFFIXES


def found_slides(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The slides, as (rootdir, relativedir), in the order of the paths.

    Args:
        paths: absolute.

    Raises:
        DatasetError: a path is not there, comes twice, or no slide was found.
    """
    given = list(paths)
    problems: list[str] = []
    found: dict[str, tuple[str, str]] = {}
    for path in given:
        try:
            for root, relative in slides_at(path):
                if os.path.join(root, relative) in found:
                    problems.append(f"{os.path.join(root, relative)} comes twice")
                found[os.path.join(root, relative)] = root, relative
        except OSError as error:
            dead = " (it is a link to a missing file)" if os.path.islink(path) else ""
            problems.append(f"{error.filename} cannot be used: {error.strerror}{dead}")
    problems += [
        f"{other} belongs to the same DICOM series as {first}: they are one slide; name it "
        "only once"
        for first, other in same_slides(found)
    ]
    refuse("the given slides", problems)
    if not found:
        raise DatasetError(
            f"no slides found in {', '.join(given[:3]) or 'an empty list'}; slides are files "
            f"that end with {', '.join(SLIDE_SUFFIXES)}"
        )
    return list(found.values())
