"""What the header of one DICOM file says about the picture in it.

pydicom parses the header once, up to the groups of single frames; no object of it is kept. Every
number is input from outside: it is checked before memory is taken for what it claims.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from chunkdl.slides.microns import is_measure
from chunkdl.slides.readers.dicom_magic import MAGIC_AT
from chunkdl.slides.readers.dicom_tags import (
    DEFLATED,
    LONG_VRS,
    OTHER_SYNTAXES,
    SOP_CLASS_WSM,
    TRANSFER_SYNTAXES,
)
from chunkdl.slides.readers.refusals import NotTaken

MOST_HEADER_BYTES = 64 * 2**20
"""Read of a header in all, without the groups of single frames; real ones have some kilobytes."""
PER_FRAME_GROUPS = 0x52009230
SHARED_GROUPS = 0x52009229
OPTICAL_PATHS = 0x00480105
IMAGE_TYPE, SERIES = 0x00080008, 0x0020000E
MOST_FRAME_PX = 16 * 2**20
MOST_TILES = 2**23

_WANTED = (
    *(IMAGE_TYPE, 0x00080016, 0x00080018, 0x00080019, 0x0008103E),
    *(SERIES, 0x00200052, 0x00209161, 0x00209162, 0x00209163, 0x00209228, 0x00209311),
    *(0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280030, 0x00280103),
    *(0x00480001, 0x00480002, 0x00480006, 0x00480007, 0x00480008, 0x00480102),
    *(OPTICAL_PATHS, 0x00480302, 0x00480303, SHARED_GROUPS),
)


@dataclass(frozen=True, slots=True)
class Concatenation:
    """The place of a file in a picture that several files hold together.

    Attributes:
        uid: of the concatenation.
        number: of this part, counted from 1.
        total: number of parts, None where the file does not say.
        frame_offset: frames of the parts before this one.
    """

    uid: str
    number: int
    total: int | None
    frame_offset: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One file of a slide.

    Attributes:
        path: the file.
        file_bytes: its size.
        uid: SOPInstanceUID, the same in every copy of the file.
        series: SeriesInstanceUID.
        series_name: SeriesDescription, may be empty.
        syntax: UID of the transfer syntax, that is, how frames are coded.
        image_type: values of ImageType in capitals.
        width, height: of the total pixel matrix, pixels.
        frame_width, frame_height: pixels of each frame.
        frames: number of frames in this file.
        organization: DimensionOrganizationType, empty where the file does not say.
        samples, bits_allocated, bits_stored, planar: of the pixels.
        photometric: PhotometricInterpretation.
        spacing: mm between the centres of neighbouring pixels as (x, y), None where unknown.
        extent: mm of the imaged area as (width, height), None where unknown.
        frame_of_reference, pyramid: UIDs, empty where the file does not say.
        orientation: ImageOrientationSlide, empty where the file does not say.
        origin: mm on the slide of the first pixel, None where unknown.
        optical_path_ids: identifiers of the optical paths.
        optical_paths, focal_planes: how many of them the file has, at least 1.
        magnification: power of the objective, None where unknown.
        icc_profile: colour profile of the first optical path.
        concatenation: None where the picture is in this file alone.
        rest: byte at which the groups of single frames, or else the pixel data, begin.
    """

    path: str
    file_bytes: int
    uid: str
    series: str
    series_name: str
    syntax: str
    image_type: tuple[str, ...]
    width: int
    height: int
    frame_width: int
    frame_height: int
    frames: int
    organization: str
    samples: int
    bits_allocated: int
    bits_stored: int
    planar: int
    photometric: str
    spacing: tuple[float, float] | None
    extent: tuple[float, float] | None
    frame_of_reference: str
    pyramid: str
    orientation: tuple[float, ...]
    origin: tuple[float, float] | None
    optical_path_ids: tuple[str, ...]
    optical_paths: int
    focal_planes: int
    magnification: float | None
    icc_profile: bytes | None
    concatenation: Concatenation | None
    rest: int

    @property
    def file(self) -> str:
        """Name of the file without its folder."""
        return os.path.basename(self.path)

    @property
    def tiles_across(self) -> int:
        """Frames in a row of the grid."""
        return -(-self.width // self.frame_width)

    @property
    def tiles(self) -> int:
        """Frames that cover the picture once."""
        return self.tiles_across * -(-self.height // self.frame_height)


class _Header(io.BufferedReader):
    """A file that gives no more bytes at once than it has, and no more in all than a header has."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))
        self.file_bytes = os.fstat(self.fileno()).st_size
        self._left = MOST_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; ValueError where an element claims more than there are."""
        wanted = self.file_bytes if size is None or size < 0 else size
        if wanted > self._left:
            raise ValueError(f"its header has more than {MOST_HEADER_BYTES} bytes")
        if wanted > self.file_bytes - self.tell() and wanted > 8:
            raise ValueError(f"an element of {wanted} bytes ends beyond the end of the file")
        data = super().read(wanted)
        self._left -= len(data)
        return data


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a series.

    Attributes:
        path: the file.
        series: its SeriesInstanceUID.
        is_volume: it is a resolution of the slide, or a part of one, and no label or overview.
    """

    path: str
    series: str
    is_volume: bool


def member_of(path: str) -> Member | None:
    """Which series a whole-slide image belongs to; None for another kind of DICOM file.

    Raises:
        NotTaken: it is deflated, so that nobody can say how large it becomes.
        ValueError, OSError: the header cannot be read.
    """
    with _Header(path) as file:
        storage, syntax = _meta(file)
        if storage != SOP_CLASS_WSM:
            return None
        if syntax == DEFLATED:
            raise NotTaken("its data set is deflated")
        with _errors_of_pydicom():
            data = _parsed(file, lambda tag: tag > SERIES, (IMAGE_TYPE, SERIES))
            series = _text(data, "SeriesInstanceUID")
            kinds = data.get("ImageType")
        if not series:
            raise ValueError("it does not say which series it belongs to: it is damaged")
        said = [kinds] if isinstance(kinds, str) else list(kinds or ())
        return Member(path, series, "VOLUME" in said)


def read_instance(path: str) -> Instance:
    """What the header of a whole-slide image says.

    Raises:
        NotTaken: it is of a kind that is not read.
        ValueError, OSError: the header cannot be read, or says what cannot be.
    """
    with _Header(path) as file:
        storage, syntax = _meta(file)
        if storage != SOP_CLASS_WSM:
            raise NotTaken(f"it is not a whole-slide image (class {storage or 'not stated'})")
        if syntax not in TRANSFER_SYNTAXES:
            name = OTHER_SYNTAXES.get(syntax, "unknown")
            raise NotTaken(f"its transfer syntax is {name} ({syntax or 'not stated'})")
        with _errors_of_pydicom():
            data = _parsed(file, lambda tag: tag >= PER_FRAME_GROUPS, _WANTED)
            found = _instance(path, syntax, file, data)
    _check(found)
    return found


def _meta(file: _Header) -> tuple[str, str]:
    """The storage class and the transfer syntax, which say how to parse what follows.

    pydicom would inflate a deflated file without a limit, so this is asked beforehand.
    """
    data = os.pread(file.fileno(), 2**16, 0)
    if data[MAGIC_AT : MAGIC_AT + 4] != b"DICM":
        raise ValueError("it is not a DICOM file")
    found = {}
    at = MAGIC_AT + 4
    while data[at : at + 2] == b"\x02\x00" and at + 12 <= len(data):
        element, vr, size = struct.unpack_from("<H2sH", data, at + 2)
        at += 8
        if vr in LONG_VRS:
            (size,) = struct.unpack_from("<I", data, at)
            at += 4
        found[element] = data[at : at + size].rstrip(b"\0 ").decode("ascii", "replace")
        at += size
    return found.get(2, ""), found.get(16, "")


def _parsed(file: _Header, stop: Callable[[int], bool], wanted: tuple[int, ...]) -> Any:
    # Imported here: it takes a tenth of a second, and most processes read no DICOM file.
    from pydicom.filereader import read_partial

    file.seek(0)
    return read_partial(file, lambda tag, _vr, _size: stop(tag), specific_tags=list(wanted))


@contextmanager
def _errors_of_pydicom() -> Iterator[None]:
    """Makes a ValueError of what parsing or converting a damaged header raises."""
    try:
        # pydicom warns of every value that is not in the form of the standard; what matters of
        # them is checked here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, OSError):
        raise
    except Exception as error:  # pydicom raises what its parsing happens to meet
        raise ValueError(f"its header cannot be parsed ({error!r}): it is damaged") from error


def _instance(path: str, syntax: str, file: _Header, data: Any) -> Instance:
    matrix = _whole(data, "TotalPixelMatrixColumns"), _whole(data, "TotalPixelMatrixRows")
    frame = _whole(data, "Columns") or 0, _whole(data, "Rows") or 0
    shared = _first(data, "SharedFunctionalGroupsSequence")
    measures = _first(shared, "PixelMeasuresSequence")
    spacing = _numbers(measures if measures is not None else data, "PixelSpacing", 2)
    extent = (
        _numbers(data, "ImagedVolumeWidth", 1),
        _numbers(data, "ImagedVolumeHeight", 1),
    )
    place = _first(data, "TotalPixelMatrixOriginSequence")
    origin = (
        _numbers(place, "XOffsetInSlideCoordinateSystem", 1),
        _numbers(place, "YOffsetInSlideCoordinateSystem", 1),
    )
    paths = list(data.get("OpticalPathSequence") or ())
    first_path = paths[0] if paths else None
    power = _numbers(first_path, "ObjectiveLensPower", 1)
    profile = None if first_path is None else first_path.get("ICCProfile")
    return Instance(
        path=path,
        file_bytes=file.file_bytes,
        uid=_text(data, "SOPInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        series_name=_text(data, "SeriesDescription"),
        syntax=syntax,
        image_type=tuple(str(value).upper() for value in _values(data, "ImageType")),
        width=frame[0] if matrix[0] is None else matrix[0],
        height=frame[1] if matrix[1] is None else matrix[1],
        frame_width=frame[0],
        frame_height=frame[1],
        frames=_whole(data, "NumberOfFrames", 1) or 0,
        organization=_text(data, "DimensionOrganizationType").upper(),
        samples=_whole(data, "SamplesPerPixel", 1) or 0,
        bits_allocated=_whole(data, "BitsAllocated") or 0,
        bits_stored=_whole(data, "BitsStored") or 0,
        planar=_whole(data, "PlanarConfiguration", 0) or 0,
        photometric=_text(data, "PhotometricInterpretation").upper(),
        # The file has the spacing of rows first.
        spacing=_positive(spacing and (spacing[1], spacing[0])),
        extent=_positive(extent[0] and extent[1] and (extent[0][0], extent[1][0])),
        frame_of_reference=_text(data, "FrameOfReferenceUID"),
        pyramid=_text(data, "PyramidUID"),
        orientation=_numbers(data, "ImageOrientationSlide", 6) or (),
        origin=(origin[0][0], origin[1][0]) if origin[0] and origin[1] else None,
        optical_path_ids=tuple(_text(item, "OpticalPathIdentifier") for item in paths),
        optical_paths=max(1, len(paths), _whole(data, "NumberOfOpticalPaths", 1) or 1),
        focal_planes=max(1, _whole(data, "TotalPixelMatrixFocalPlanes", 1) or 1),
        magnification=power[0] if power and power[0] > 0 else None,
        icc_profile=profile if isinstance(profile, bytes) and profile else None,
        concatenation=_concatenation(data),
        rest=file.tell(),
    )


def _concatenation(data: Any) -> Concatenation | None:
    uid = _text(data, "ConcatenationUID")
    if not uid:
        return None
    return Concatenation(
        uid=uid,
        number=_whole(data, "InConcatenationNumber", 1) or 1,
        total=_whole(data, "InConcatenationTotalNumber") or None,
        frame_offset=_whole(data, "ConcatenationFrameOffsetNumber", 0) or 0,
    )


def _check(found: Instance) -> None:
    """Check what the header claims before memory is taken for it."""
    size = (found.width, found.height, found.frame_width, found.frame_height)
    if min(*size, found.frames) <= 0:
        raise ValueError(
            f"it claims {found.frames} frames of {size[2]}x{size[3]} for {size[0]}x{size[1]} pixels"
        )
    if found.frame_width * found.frame_height > MOST_FRAME_PX:
        raise ValueError(f"frames of {size[2]}x{size[3]}: at most {MOST_FRAME_PX} pixels are read")
    if found.tiles > MOST_TILES:
        raise ValueError(
            f"it claims {found.tiles} places for frames: at most {MOST_TILES} are read"
        )
    # Even an empty frame takes the header of an item.
    if found.frames > min(MOST_TILES, found.file_bytes // 8):
        raise ValueError(
            f"it claims {found.frames} frames in {found.file_bytes} bytes: it is damaged or cut "
            "short, copy it again"
        )


# ---- Values of elements, whatever is in them


def _values(data: Any, name: str) -> list[Any]:
    value = data.get(name)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _text(data: Any, name: str) -> str:
    return str(data.get(name) or "").strip()


def _first(data: Any, name: str) -> Any:
    """The first item of a sequence, None where there is none."""
    items = None if data is None else data.get(name)
    return items[0] if items else None


def _whole(data: Any, name: str, absent: int | None = None) -> int | None:
    value = data.get(name)
    return absent if value is None or value == "" else int(value)


def _numbers(data: Any, name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, None where the element is absent or holds something else."""
    if data is None:
        return None
    try:
        found = tuple(float(value) for value in _values(data, name))
    except (ValueError, TypeError, OverflowError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def _positive(pair: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (pair[0], pair[1]) if pair and all(map(is_measure, pair)) else None
