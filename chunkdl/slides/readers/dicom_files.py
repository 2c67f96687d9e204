"""Which DICOM files stand for slides, found without opening any: one slide is one series."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

DICOM_SUFFIX = ".dcm"
HEAD_BYTES = 256 * 1024
"""Read of each file; the two elements that are looked for lie within its first kilobytes."""
_IMAGE_TYPE, _SERIES = 0x00080008, 0x0020000E

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Instance:
    """What one file says.

    Attributes:
        path: the file.
        series: its SeriesInstanceUID.
        is_volume: it is a resolution of a slide, or a part of one, and no label or overview.
    """

    path: str
    series: str
    is_volume: bool


def series_among(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """DICOM files by SeriesInstanceUID; reads their heads only.

    A file that cannot be read as DICOM, or says no series, is named in a warning and left out.

    Args:
        paths: DICOM files of one folder.

    Returns:
        Paths, sorted; the series in the order of their first files.
    """
    return {
        series: tuple(instance.path for instance in instances)
        for series, instances in _by_series(paths).items()
    }


def slides_among(paths: Iterable[str]) -> list[str]:
    """The files that stand for slides: of each series the first that is an image of the slide.

    A series without one (labels, annotations) is named in a warning and left out; so is what
    `series_among` leaves out.

    Args:
        paths: DICOM files of one folder.
    """
    found = []
    for series, instances in _by_series(paths).items():
        volumes = [instance.path for instance in instances if instance.is_volume]
        if volumes:
            found.append(volumes[0])
        else:
            log.warning(
                "the DICOM series %s has no image of the type VOLUME and is left out: %s",
                series,
                instances[0].path,
            )
    return found


def slides_in(folder: str) -> list[str]:
    """`slides_among` the files of a folder that end with ".dcm" and are not hidden.

    Raises:
        OSError: the folder cannot be read.
    """
    names = (name for name in os.listdir(folder) if name.lower().endswith(DICOM_SUFFIX))
    return slides_among(os.path.join(folder, name) for name in names if not name.startswith("."))


def _by_series(paths: Iterable[str]) -> dict[str, list[_Instance]]:
    series: dict[str, list[_Instance]] = {}
    for path in sorted(paths):
        instance = _instance(path)
        if instance is not None:
            series.setdefault(instance.series, []).append(instance)
    return series


def _instance(path: str) -> _Instance | None:
    """What a file says; None, after a warning, where it is no DICOM file of a series."""
    # Imported here: it takes a quarter of a second, and most datasets have no DICOM files.
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        log.warning("%s is no part of a slide: it cannot be read (%s)", path, error.strerror)
        return None
    try:
        said = read_partial(
            io.BytesIO(head),
            stop_when=lambda tag, vr, length: tag > _SERIES,
            specific_tags=[Tag(_IMAGE_TYPE), Tag(_SERIES)],
        )
        series, image_type = said.get("SeriesInstanceUID"), said.get("ImageType")
    except Exception as error:  # The library raises whatever its parser stumbles over.
        log.warning("%s is no part of a slide: it cannot be read as DICOM (%s)", path, error)
        return None
    if not series:
        log.warning("%s is no part of a slide: it has no SeriesInstanceUID", path)
        return None
    kinds = [image_type] if isinstance(image_type, str) else list(image_type or ())
    return _Instance(path, str(series), "VOLUME" in kinds)
