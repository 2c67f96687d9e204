"""Which slides are at a path: a file, one image of a file, or all slides below a folder."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable

from chunkdl.slides.address import parse_address
from chunkdl.slides.readers.dicom_series import series_among, slides_among
from chunkdl.slides.suffixes import DICOM_SUFFIX, SLIDE_SUFFIXES
from chunkdl.system.steady_log import steady_logger

_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What the system says of a link whose target is not there."""

log = steady_logger("chunkdl")


def slides_at(path: str) -> list[tuple[str, str]]:
    """The slides at a path, sorted, as (rootdir, relativedir).

    A folder is searched with all its subfolders, also through links, each real folder once; hidden
    names are left out, and links that lead nowhere are named in a warning and left out. The DICOM
    files of a folder are one slide for each series.

    Args:
        path: absolute; a file, or the folder of DICOM slides, may have its image behind it
            ("slide.tif#image=1").

    Raises:
        OSError: the path, or a folder below it, cannot be looked at.
    """
    address = parse_address(path)
    if not stat.S_ISDIR(os.stat(address.path).st_mode) or address.image is not None:
        folder, name = os.path.split(path)
        return [(os.path.join(folder, ""), name)]
    return [(os.path.join(path, ""), os.path.relpath(file, path)) for file in sorted(_below(path))]


def _below(top: str) -> list[str]:
    found: list[str] = []
    # Links wait until all real folders were seen: so a slide is named by its real place.
    folders, links, seen = [top], list[str](), set[tuple[int, int]]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        names = _Names(folder)
        folders += names.folders
        links = sorted([*links, *names.links], reverse=True)
        found += names.slides + slides_among(names.dicom)
    return found


class _Names:
    """What lies in a folder: paths of folders, of links to folders, of slides, of DICOM files."""

    def __init__(self, folder: str) -> None:
        self.folders: list[str] = []
        self.links: list[str] = []
        self.slides: list[str] = []
        self.dicom: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                # Hidden files: copies made on a Mac have a "._name.svs" beside every "name.svs".
                if not entry.name.startswith("."):
                    self._sort_in(entry)

    def _sort_in(self, entry: os.DirEntry[str]) -> None:
        is_link = entry.is_symlink()
        if is_link and _leads_nowhere(entry.path):
            log.warning("%s is a link to a missing file and is left out", entry.path)
        elif entry.is_dir():
            (self.links if is_link else self.folders).append(entry.path)
        elif entry.name.lower().endswith(DICOM_SUFFIX):
            self.dicom.append(entry.path)
        elif entry.name.lower().endswith(SLIDE_SUFFIXES):
            self.slides.append(entry.path)


def _leads_nowhere(link: str) -> bool:
    try:
        os.stat(link)
    except OSError as error:
        if error.errno in _NOWHERE:
            return True
        raise
    return False


def same_slides(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of DICOM files among the paths that are of one series, and so one slide.

    Only files of one folder are compared; what cannot be read is equal to nothing.
    """
    in_folder: dict[str, list[str]] = {}
    for path in paths:
        if _is_dicom(path):
            in_folder.setdefault(os.path.dirname(path), []).append(path)
    return [
        (files[0], other)
        for together in in_folder.values()
        if len(together) > 1
        for files in series_among(together).values()
        for other in files[1:]
    ]


def slide_names(slides: list[tuple[str, str]]) -> list[str]:
    """What to call slides, for people: the path below the folder that was searched.

    A DICOM slide is called as its folder, or folder and file where another lies in that folder.

    Args:
        slides: as `slides_at` gives them.
    """
    paths = [os.path.join(root, relative) for root, relative in slides]
    in_folder = Counter(os.path.dirname(path) for path in paths if _is_dicom(path))
    return [
        _dicom_name(path, relative, alone=in_folder[os.path.dirname(path)] == 1)
        if _is_dicom(path)
        else relative
        for path, (_, relative) in zip(paths, slides, strict=True)
    ]


def _is_dicom(path: str) -> bool:
    return path.lower().endswith(DICOM_SUFFIX)


def _dicom_name(path: str, relative: str, *, alone: bool) -> str:
    folder = os.path.dirname(relative) or os.path.basename(os.path.dirname(path))
    return folder if alone else os.path.join(folder, os.path.basename(path))
