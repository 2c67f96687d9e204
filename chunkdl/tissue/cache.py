"""The disk cache of computed tissue masks, shared by all processes and runs of a user.

A file is named by what its mask depends on, holds its own checksum and appears whole or not at
all, so readers need no lock: a file that cannot be trusted is made anew. Whatever goes wrong with
the cache costs time, never a run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.tissue.detectors import TissueDetector
from chunkdl.tissue.mask import TissueMask

_LOG = logging.getLogger(__name__)

# Part of every key: a change of the file format or of compute_mask raises it.
_VERSION = b"chunkdl mask 1"
_HEADER = struct.Struct("<14s32s32sIIQQ")
"""Version, key, sha256 of what follows it, rows, columns, width0, height0; then zlib bits."""
_CHECKED_FROM = len(_VERSION) + 64
_MOST_CELLS = 2**28
_MOST_FILE_BYTES = _HEADER.size + _MOST_CELLS // 8 + 2**20


class MaskCache:
    """Tissue masks on disk, by slide file and detector.

    Args:
        folder: where the masks lie; made when first needed. None stands for `default_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = default_folder() if folder is None else folder
        self._complained = False

    def get_or_compute(
        self,
        path: str | os.PathLike[str],
        detector: TissueDetector,
        compute: Callable[[], TissueMask],
        *,
        settings: str = "",
    ) -> TissueMask:
        """The mask of a slide file, from disk if it is there and sound, else computed and kept.

        A file counts as the same while its resolved path, size and time of change (ns) are the
        same; of a slide of several files (MIRAX, DICOM) only the given one is looked at.

        Args:
            path: the slide file; of two images of one file ("slide.tif#image=1") each has a mask.
            detector: its `key` is part of the name of the mask.
            compute: makes the mask; what it raises is passed on and nothing is kept.
            settings: whatever else the mask depends on, such as the reader's name and an mpp that
                replaces the file's.

        Raises:
            SlideError: there is no such file.
        """
        key = _key(path, detector.key, settings)
        file = self._folder / f"{key.hex()}.mask"
        try:
            return _decoded(_bytes_of(file), key)
        except FileNotFoundError:
            _LOG.debug("no tissue mask of %s in the cache", path)
        except OSError as error:
            self._complain(error)
        except ValueError as error:
            _LOG.warning("tissue mask %s is not usable and is made anew: %s", file, error)
        mask = compute()
        self._keep(file, _encoded(mask, key))
        return mask

    def _keep(self, file: Path, data: bytes) -> None:
        try:
            write_whole(file, data)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Warn of an unusable folder, once: it concerns every slide alike."""
        if not self._complained:
            self._complained = True
            _LOG.warning(
                "the folder of tissue masks %s cannot be used (%s); masks are computed again in "
                "every run unless another cache folder is given",
                self._folder,
                error,
            )


def write_whole(file: Path, data: bytes) -> None:
    """Write a file that readers see whole or not at all; makes its folder where it is not.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Never two writers in one file; a rename within a folder replaces the old one at once.
    unfinished = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/chunkdl/masks`, or `~/.cache/chunkdl/masks` where that is not set.

    As the XDG Base Directory Specification asks, a relative `XDG_CACHE_HOME` is ignored.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~/.cache"))
    return base / "chunkdl" / "masks"


def _key(path: str | os.PathLike[str], detector_key: str, settings: str) -> bytes:
    address = parse_address(path)
    try:
        facts = os.stat(address.path)
    except OSError as error:
        raise SlideError(
            f"the file cannot be used: {error.strerror}", slide=os.fspath(path)
        ) from error
    parts = [
        _VERSION,
        os.fsencode(os.path.realpath(address.path)),
        f"{facts.st_size} {facts.st_mtime_ns}".encode(),
        detector_key.encode(),
        settings.encode(),
        b"" if address.image is None else b"image %d" % address.image,
    ]
    # The length before each part keeps different lists of parts different as bytes.
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in parts)).digest()


def _encoded(mask: TissueMask, key: bytes) -> bytes:
    bits = zlib.compress(np.packbits(mask.cells).tobytes(), level=6)
    rows, columns = mask.cells.shape
    facts = _HEADER.pack(_VERSION, key, bytes(32), rows, columns, mask.width0, mask.height0)
    checked = facts[_CHECKED_FROM:] + bits
    return _VERSION + key + hashlib.sha256(checked).digest() + checked


def _bytes_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > _MOST_FILE_BYTES:
            raise ValueError(f"its {size} bytes are too many for a mask")
        return opened.read()


def _decoded(data: bytes, key: bytes) -> TissueMask:
    """The mask in a file; ValueError says what is wrong with it."""
    if len(data) < _HEADER.size:
        raise ValueError("it is truncated")
    version, kept_key, checksum, rows, columns, width0, height0 = _HEADER.unpack_from(data)
    if version != _VERSION or kept_key != key:
        raise ValueError("it is no mask of this slide and detector")
    if hashlib.sha256(data[_CHECKED_FROM:]).digest() != checksum:
        raise ValueError("it is damaged")
    cells = rows * columns
    if not (0 < cells <= _MOST_CELLS and width0 > 0 and height0 > 0):
        raise ValueError(f"it says {rows}x{columns} cells for {width0}x{height0} pixels")
    length = (cells + 7) // 8
    inflater = zlib.decompressobj()
    try:
        bits = inflater.decompress(data[_HEADER.size :], length + 1)
    except zlib.error as error:
        raise ValueError(f"it does not decompress: {error}") from error
    if len(bits) != length or not inflater.eof:
        raise ValueError("its cells do not fit its size")
    unpacked = np.unpackbits(np.frombuffer(bits, np.uint8), count=cells)
    return TissueMask(unpacked.reshape(rows, columns).view(np.bool_), width0, height0)
