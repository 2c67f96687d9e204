"""Which DICOM files belong together: one slide is one series of several files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache

from chunkdl.slides.readers.dicom_header import Member, member_of
from chunkdl.slides.readers.dicom_magic import is_dicom
from chunkdl.slides.readers.refusals import NotTaken
from chunkdl.slides.suffixes import DICOM_SUFFIX
from chunkdl.system.steady_log import steady_logger

log = steady_logger(__name__)


# ---- The slides of a dataset


def series_among(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """DICOM files by SeriesInstanceUID; reads their headers only.

    A file that is not a whole-slide image, or cannot be read, is named in a warning and left out.

    Args:
        paths: DICOM files of one folder.

    Returns:
        Paths, sorted; the series in the order of their first files.
    """
    return {
        series: tuple(member.path for member in members)
        for series, members in _by_series(paths).items()
    }


def slides_among(paths: Iterable[str]) -> list[str]:
    """The files that stand for slides: of each series the first that is an image of the slide.

    A series without one (labels, annotations) is named in a warning and left out; so is what
    `series_among` leaves out.

    Args:
        paths: DICOM files of one folder.
    """
    found = []
    for series, members in _by_series(paths).items():
        volumes = [member.path for member in members if member.is_volume]
        if volumes:
            found.append(volumes[0])
        else:
            log.warning(
                "the DICOM series %s has no image of the type VOLUME and is left out: %s",
                series,
                members[0].path,
            )
    return found


def dicom_files_in(folder: str) -> list[str]:
    """Paths of the files of a folder that end with ".dcm" and are not hidden, sorted.

    Raises:
        OSError: the folder cannot be read.
    """
    names = (name for name in os.listdir(folder) if name.lower().endswith(DICOM_SUFFIX))
    return sorted(os.path.join(folder, name) for name in names if not name.startswith("."))


def slides_in(folder: str) -> list[str]:
    """`slides_among` the `dicom_files_in` a folder."""
    return slides_among(dicom_files_in(folder))


def _by_series(paths: Iterable[str]) -> dict[str, list[Member]]:
    series: dict[str, list[Member]] = {}
    for path in sorted(paths):
        try:
            member = member_of(path)
        except (NotTaken, ValueError, OSError) as error:
            log.warning("%s is not a part of a slide: it cannot be read (%s)", path, error)
            continue
        if member is None:
            log.warning("%s is not a part of a slide: it is another kind of DICOM file", path)
        else:
            series.setdefault(member.series, []).append(member)
    return series


# ---- The files of a slide


def series_in(folder: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """The DICOM slides in a folder: paths of the files, sorted, by SeriesInstanceUID.

    Only headers are read; folders below it are not looked at. A file that is not a whole-slide
    image is left aside; so is one that cannot be read, see `unreadable_in`.

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
            if not is_dicom(path) and not file.lower().endswith(DICOM_SUFFIX):
                continue
            member = member_of(path)
        except (NotTaken, ValueError, OSError) as error:
            unreadable.append(f"The file {file} cannot be read and is ignored: {error}.")
            continue
        if member is not None:
            found.setdefault(member.series, []).append(path)
    return tuple((series, tuple(paths)) for series, paths in found.items()), tuple(unreadable)
