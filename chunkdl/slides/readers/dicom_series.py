"""Which files of a folder belong together: one slide is one DICOM series of several files."""

from __future__ import annotations

import os
from functools import lru_cache

from chunkdl.slides.readers.dicom_header import is_dicom, series_of
from chunkdl.slides.readers.refusals import NotTaken


def series_in(folder: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """The DICOM slides in a folder: paths of the files, sorted, by SeriesInstanceUID.

    Only headers are read; folders below it are not looked at. A file that is no whole-slide image
    is left aside; so is one that cannot be read, see `unreadable_in`.

    Args:
        folder: the folder.

    Returns:
        The series in the order of their first files.

    Raises:
        OSError: the folder cannot be read.
    """
    name = os.fspath(folder)
    return dict(_read_folder(name, _files(name))[0])


def unreadable_in(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """The DICOM files of a folder that `series_in` left aside because they cannot be read.

    Args:
        folder: the folder.

    Returns:
        A sentence for each.

    Raises:
        OSError: the folder cannot be read.
    """
    name = os.fspath(folder)
    return _read_folder(name, _files(name))[1]


Files = tuple[tuple[str, int, int], ...]
"""Name, size and time of change (ns) of each file, sorted."""


def _files(folder: str) -> Files:
    with os.scandir(folder) as entries:
        facts = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return tuple(sorted((name, fact.st_size, fact.st_mtime_ns) for name, fact in facts))


@lru_cache(maxsize=16)
def _read_folder(
    folder: str, files: Files
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], tuple[str, ...]]:
    """The series of a folder, and a sentence for each file that cannot be read.

    Every slide of a folder with the files of a thousand slides asks for all of its headers, so
    they are kept while no file changes.
    """
    found: dict[str, list[str]] = {}
    unreadable = []
    for file, _, _ in files:
        path = os.path.join(folder, file)
        try:
            # A file that was cut off at once has not even the mark of the format.
            if not is_dicom(path) and not file.lower().endswith(".dcm"):
                continue
            series = series_of(path)
        except (NotTaken, ValueError, OSError) as error:
            unreadable.append(f"The file {file} cannot be read and is left aside: {error}.")
            continue
        if series is not None:
            found.setdefault(series, []).append(path)
    return tuple((series, tuple(paths)) for series, paths in found.items()), tuple(unreadable)
