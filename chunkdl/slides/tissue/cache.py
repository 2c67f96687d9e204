"""The disk cache of computed tissue masks, shared by all processes and runs of a user.

A file is named by what its mask depends on, holds its own checksum and appears whole or not at
all, so readers need no lock: a file that cannot be trusted is made anew. Who makes one holds a lock
that the kernel takes back with the process, so that the others wait instead of doing the same work.
Whatever goes wrong with the cache costs time, never a run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.tissue.detectors.detector import TissueDetector
from chunkdl.slides.tissue.mask import TissueMask
from chunkdl.system.awake_clock import PIECE_S, deadline_of
from chunkdl.system.kept_files import cache_folder, key_of, read_at_most, state_of, write_whole
from chunkdl.system.steady_log import steady_logger

_LOG = steady_logger(__name__)

# Part of every key: a change of the file format or of compute_mask raises it.
_VERSION = b"chunkdl mask 2"
_HEADER = struct.Struct("<14s32s32sIIQQ")
"""Version, key, sha256 of what follows it, rows, columns, width0, height0; then zlib bits."""
_CHECKED_FROM = len(_VERSION) + 64
_MOST_CELLS = 2**28
_MOST_FILE_BYTES = _HEADER.size + _MOST_CELLS // 8 + 2**20
_POLL_S = 0.05
MOST_WAIT_S = 600.0
"""For a mask that another process computes. One that hangs is ended by its own coordinator, but it
may run on another machine, and there nobody may look."""


def _nothing() -> None:
    """For those whose silence nobody counts."""


class MaskCache:
    """Tissue masks on disk, by slide file and detector.

    Args:
        folder: where the masks lie; made when first needed. None stands for `default_folder()`.
        on_progress: called again and again while another process computes a mask that is waited
            for; what it raises ends the wait.
    """

    def __init__(
        self, folder: Path | None = None, on_progress: Callable[[], None] = _nothing
    ) -> None:
        self._folder = default_folder() if folder is None else folder
        self._on_progress = on_progress
        self._complained = False

    @property
    def folder(self) -> Path:
        """Where the masks lie; it may not be there yet."""
        return self._folder

    def get_or_compute(
        self,
        path: str | os.PathLike[str],
        detector: TissueDetector,
        compute: Callable[[], TissueMask],
        *,
        settings: str = "",
    ) -> TissueMask:
        """The mask of a slide file, from disk if it is there and sound, else computed and kept.

        Of all processes with the same folder one computes it; the others wait, and get it from
        disk. After `MOST_WAIT_S`, or where the folder knows no locks, each computes for itself.

        A file counts as the same while its resolved path, size and time of change (ns) are the
        same. Of a slide of several files the others are the business of `settings`.

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
        kept = self._kept(file, key)
        if isinstance(kept, TissueMask):
            return kept
        with self._alone(file.with_suffix(".lock")):
            # Another process may have made it meanwhile.
            kept = self._kept(file, key)
            if isinstance(kept, TissueMask):
                return kept
            if kept:
                _LOG.warning(
                    "the kept tissue mask %s cannot be used, and is computed again: %s", file, kept
                )
            mask = compute()
            self._keep(file, _encoded(mask, key))
        return mask

    def _kept(self, file: Path, key: bytes) -> TissueMask | str:
        """The mask on disk, or what is wrong with it; empty: there is none."""
        try:
            return _decoded(read_at_most(file, _MOST_FILE_BYTES), key)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self._complain(error)
            return ""
        except ValueError as error:
            return str(error)

    @contextmanager
    def _alone(self, file: Path) -> Iterator[None]:
        """Hold the lock of a mask, if it comes in time and the folder has locks."""
        descriptor = self._lock(file)
        try:
            yield
        finally:
            if descriptor is not None:
                # Before it is free: who gets a lock that has lost its name asks again. A file that
                # stays is locked by nobody.
                with suppress(OSError):
                    file.unlink(missing_ok=True)
                os.close(descriptor)

    def _lock(self, file: Path) -> int | None:
        """The descriptor that holds the lock; None: there is no lock to be had."""
        left = deadline_of(MOST_WAIT_S)
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                self._complain(error)
                return None
            try:
                if self._got(descriptor, file, left):
                    return descriptor
            except OSError as error:
                _LOG.debug(
                    "the folder of tissue masks cannot be locked (%s); the mask is computed "
                    "without a lock",
                    error,
                )
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            if not left(PIECE_S):
                _LOG.warning(
                    "another process has been computing the tissue mask %s for more than %.0f s; "
                    "this process now computes it too",
                    file.with_suffix(".mask"),
                    MOST_WAIT_S,
                )
                return None

    def _got(self, descriptor: int, file: Path, left: Callable[[float], float]) -> bool:
        """Whether the lock is held; False: it was given up under that name, or time is over."""
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left(PIECE_S):
                    return False
            time.sleep(_POLL_S)
            # Even if the lock is free now: the process that computed may have died over it.
            self._on_progress()
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(file))
        except FileNotFoundError:
            return False

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


def default_folder() -> Path:
    """Where the masks of a user lie who names no folder."""
    return cache_folder("masks")


def _key(path: str | os.PathLike[str], detector_key: str, settings: str) -> bytes:
    address = parse_address(path)
    try:
        state = state_of(address.path)
    except OSError as error:
        raise SlideError(
            f"the file cannot be used: {error.strerror}", slide=os.fspath(path)
        ) from error
    parts = [
        _VERSION,
        os.fsencode(os.path.realpath(address.path)),
        state,
        detector_key.encode(),
        settings.encode(),
        b"" if address.image is None else b"image %d" % address.image,
    ]
    return key_of(parts)


def _encoded(mask: TissueMask, key: bytes) -> bytes:
    bits = zlib.compress(np.packbits(mask.cells).tobytes(), level=6)
    rows, columns = mask.cells.shape
    facts = _HEADER.pack(_VERSION, key, bytes(32), rows, columns, mask.width0, mask.height0)
    checked = facts[_CHECKED_FROM:] + bits
    return _VERSION + key + hashlib.sha256(checked).digest() + checked


def _decoded(data: bytes, key: bytes) -> TissueMask:
    """The mask in a file; ValueError says what is wrong with it."""
    if len(data) < _HEADER.size:
        raise ValueError("it is truncated")
    version, kept_key, checksum, rows, columns, width0, height0 = _HEADER.unpack_from(data)
    if version != _VERSION or kept_key != key:
        raise ValueError("it is not a mask of this slide and detector")
    if hashlib.sha256(data[_CHECKED_FROM:]).digest() != checksum:
        raise ValueError("it is damaged")
    cells = rows * columns
    if not (0 < cells <= _MOST_CELLS and width0 > 0 and height0 > 0):
        raise ValueError(f"it has {rows}x{columns} cells for {width0}x{height0} pixels")
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
