"""Looks on disk, beside the tissue masks: what was looked at is known until the slide changes.

A file is named by everything that its content depends on, holds its own checksum and appears whole
or not at all. Whatever goes wrong with the folder costs time, never a survey.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import msgspec
import numpy as np

import chunkdl
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.dataset.slide_entry import SlideEntry
from chunkdl.engine.settings.annotation_source import AnnotationSource
from chunkdl.slides.header_facts import KeptFacts
from chunkdl.survey.look import DECODER, Look, encoded
from chunkdl.system.kept_files import key_of, read_at_most, sealed, state_of, unsealed, write_whole
from chunkdl.system.steady_log import steady_logger

_VERSION = b"chunkdl look 1"
_MOST_BYTES = 2**20

log = steady_logger(__name__)


class KeptLooks:
    """The looks in a folder; used by many threads at a time.

    Args:
        facts: names slides by the state of their files.
        about: identifies the settings that slides are looked at with.
        source: of annotations.
    """

    def __init__(self, facts: KeptFacts, about: str, source: AnnotationSource | None) -> None:
        self._facts = facts
        self._folder: Path = facts.folder
        self._about = about.encode()
        self._source = source
        self._complained = False

    def key(self, entry: SlideEntry) -> bytes:
        """Names what a look at a slide depends on.

        Its size and time of change (ns) are part of it, as of `header_facts`; those of a tissue
        mask and of annotations that were given as files as well.

        Raises:
            OSError: the file, or one that belongs to it, is not there.
        """
        slide = self._facts.key(entry.path)
        return key_of(
            [
                _VERSION,
                _code(),
                slide,
                self._about,
                repr(entry.mpp).encode(),
                _mask_state(entry.tissue_mask),
                self._annotation_state(entry),
            ]
        )

    def get(self, key: bytes) -> Look | None:
        """The look with that key; None: there is none to be trusted."""
        file = self._file(key)
        try:
            return DECODER.decode(unsealed(read_at_most(file, _MOST_BYTES), _VERSION, key))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(error)
        except (ValueError, msgspec.DecodeError) as error:
            log.warning("%s cannot be used, and the slide is looked at again: %s", file, error)
        return None

    def keep(self, key: bytes, look: Look) -> None:
        """Keep a look, unless it has failed."""
        if look.failed:
            return
        try:
            write_whole(self._file(key), sealed(_VERSION, key, encoded(look)))
        except OSError as error:
            self._complain(error)

    def _file(self, key: bytes) -> Path:
        return self._folder / f"{key.hex()}.look"

    def _annotation_state(self, entry: SlideEntry) -> bytes:
        source = self._source
        if source is None:
            return b"none"
        how = source.options.key().encode()
        if isinstance(source.of_slide, OwnAnnotations):
            return b"function " + source.of_slide.key.encode() + b" " + how
        path = source.of_slide.get(entry.path)
        return b"no file" if path is None else b"file " + how + _file_state(path)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "what is found out about slides cannot be kept in %s (%s); the next survey looks "
                "at all slides again unless another cache folder is given",
                self._folder,
                error,
            )


def _mask_state(mask: object) -> bytes:
    if mask is None:
        return b""
    if isinstance(mask, str | os.PathLike):
        return _file_state(os.fspath(mask))
    cells = np.ascontiguousarray(mask)
    about = f"{cells.shape} {cells.dtype}".encode()
    return about + hashlib.sha256(cells.tobytes()).digest()


def _file_state(path: str) -> bytes:
    try:
        state = state_of(path)
    except OSError:
        state = b"not there"
    return os.fsencode(os.path.abspath(path)) + b" " + state


@functools.cache
def _code() -> bytes:
    """Identifies the code that looks: what other code found is found anew."""
    digest = hashlib.sha256()
    for file in sorted(Path(chunkdl.__path__[0]).rglob("*.py")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()
