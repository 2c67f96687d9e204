"""Tissue masks that users give as arrays: kept in files, instead of sent to every process.

A process has a folder of its own for them, which is removed when the last process ends that uses
it. Each of those holds a lock of the kernel on it, so what a killed one has left is known by that,
and removed by the next that makes one.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from chunkdl.slides.tissue.cache import default_folder
from chunkdl.system.kept_files import write_whole
from chunkdl.system.steady_log import steady_logger

_LOG = steady_logger(__name__)

_FOLDER = re.compile(r"given-([0-9a-f]{8})-[0-9a-f]{16}")
"""With the machine of its maker: of another one a lock may not be seen."""
_OURS = re.compile(r"[0-9a-f]{64}\.png(\..+\.tmp)?")
"""Files in such a folder; nothing else is ever removed there."""
_LOCK = "in-use"
MOST_PIXELS = 1024 * 1024 * 1024 // 4 // 3
"""Of an image that Pillow reads without a warning, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class _Used:
    """A folder that this process uses.

    Attributes:
        path: of it.
        lock: descriptor, whose lock others see.
        pid: of this process, which a fork is not.
    """

    path: Path
    lock: int
    pid: int


_used: dict[Path, _Used] = {}
_own: dict[Path, Path] = {}
"""The folder of this process in each folder of masks."""


def in_files(masks: Sequence[Any], folder: Path | None) -> list[Any]:
    """The same masks, those that are arrays as paths of image files.

    A file is named by what is in it, so a mask that is given again is there already. The files are
    there for as long as this process, or one that has called `keep`.

    Args:
        masks: as users give them, with None for slides without one; what is not a mask stays what
            it is, and is refused where it is used.
        folder: of the tissue mask cache, made when first needed; None: the user's. Where it cannot
            be written the masks stay arrays, with a warning.
    """
    into = default_folder() if folder is None else folder
    found = list(masks)
    try:
        for index, mask in enumerate(masks):
            if isinstance(mask, np.ndarray) and _fits_into_an_image(mask):
                found[index] = str(_written(mask, _own_folder(into)))
    except OSError as error:
        _LOG.warning(
            "the given tissue masks cannot be written to %s, so each process has its own copy: %s",
            into,
            error,
        )
    return found


def keep(masks: Iterable[Any]) -> None:
    """Have files that another process has made with `in_files` stay until this one ends, too."""
    folders = {Path(mask).parent for mask in masks if isinstance(mask, str)}
    for folder in folders - _used.keys():
        if _FOLDER.fullmatch(folder.name) and (folder / _LOCK).is_file():
            with contextlib.suppress(OSError):
                _use(folder)


def _own_folder(into: Path) -> Path:
    """That of this process; what dead ones have left is removed first."""
    own = _used.get(_own.get(into, into))
    if own is not None and own.pid == os.getpid() and (own.path / _LOCK).exists():
        return own.path
    into.mkdir(parents=True, exist_ok=True)
    for entry in into.iterdir():
        found = _FOLDER.fullmatch(entry.name)
        if found is not None and found[1] == _machine():
            # Another user's, or just removed by somebody else.
            with contextlib.suppress(OSError):
                _remove_unused(entry)
    while True:
        folder = into / f"given-{_machine()}-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        try:
            if _use(folder):
                _own[into] = folder
                return folder
        except OSError:
            with contextlib.suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)
                folder.rmdir()
            raise


def _machine() -> str:
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def _use(folder: Path) -> bool:
    """Let nobody remove it before this process ends; False: somebody has just done so."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.stat(folder / _LOCK).st_ino != os.fstat(lock).st_ino:
            raise FileNotFoundError(folder)
    except (BlockingIOError, FileNotFoundError):
        os.close(lock)
        return False
    except BaseException:
        os.close(lock)
        raise
    if not _used:
        atexit.register(_end)
    _used[folder] = _Used(folder, lock, os.getpid())
    return True


def _end() -> None:
    """Remove what no other process uses."""
    for used in _used.values():
        if used.pid == os.getpid():
            with contextlib.suppress(OSError):
                _remove(used.path, used.lock)
            os.close(used.lock)
    _used.clear()


def _remove_unused(folder: Path) -> None:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Its maker was killed before it had a lock; or is about to have one, and makes another.
        folder.rmdir()
        return
    try:
        _remove(folder, lock)
    finally:
        os.close(lock)


def _remove(folder: Path, lock: int) -> None:
    """Remove a folder, unless somebody else uses it.

    Raises:
        OSError: somebody does; or it cannot be removed.
    """
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for entry in folder.iterdir():
        if _OURS.fullmatch(entry.name):
            entry.unlink()
    (folder / _LOCK).unlink()
    folder.rmdir()


def _fits_into_an_image(mask: npt.NDArray[Any]) -> bool:
    # Workers have Pillow's own limit, whatever the training has made of it.
    most = MOST_PIXELS if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS
    most = min(most, MOST_PIXELS)
    right = mask.ndim == 2 and mask.dtype in (np.bool_, np.uint8) and mask.size > 0
    return right and mask.size <= most


def _written(mask: npt.NDArray[Any], folder: Path) -> Path:
    image = io.BytesIO()
    Image.fromarray(mask != 0).save(image, "PNG")
    data = image.getvalue()
    path = folder / f"{hashlib.sha256(data).hexdigest()}.png"
    try:
        if path.read_bytes() == data:
            return path
    except FileNotFoundError:
        pass  # it is new
    write_whole(path, data)
    return path
