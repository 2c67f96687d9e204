"""What the headers of many slides say: read in parallel, and kept on disk beside the masks.

A file is named by everything that its content depends on, holds its own checksum and appears
whole or not at all. Whatever goes wrong with the folder costs time, never a run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import msgspec

import chunkdl.slides
from chunkdl.errors import SlideError
from chunkdl.slides.address import parse_address
from chunkdl.slides.header_pack import HeaderPack
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import AS_STORED, PixelRule, SlideInfo
from chunkdl.slides.suffixes import DICOM_SUFFIX
from chunkdl.slides.tissue.cache import default_folder
from chunkdl.system.kept_files import (
    key_of,
    read_at_most,
    sealed,
    state_of,
    unsealed,
    write_whole,
)
from chunkdl.system.printing import printable
from chunkdl.system.steady_log import steady_logger

Fact = TypeVar("Fact")
HeaderFacts = SlideInfo | SlideError
"""What a slide says of itself, or why it cannot be opened."""

THREADS = 16
"""Slides that are looked at together: most of the time goes in waiting for a network folder."""
SILENCE_S = 30.0
"""Without an answer, after which the slides that are waited for are named, again and again."""
_MOST_NAMED = 3
_VERSION = b"chunkdl header 2"
_MOST_BYTES = 2**20

log = steady_logger(__name__)
# Made once: msgspec learns a class when it first reads one, and two threads that make it learn the
# same class at a time end the process.
_DECODER = msgspec.msgpack.Decoder(SlideInfo)


def header_facts(
    names: Sequence[str], reader: str, folder: Path | None, rule: PixelRule = AS_STORED
) -> list[HeaderFacts]:
    """The facts of slides, in the order of their names; opens those that are not known yet.

    Facts count as known while the resolved path, size and time of change (ns) of the file are the
    same, and of the other files of a DICOM or MIRAX slide, and the code of the readers. That a
    slide cannot be opened is not kept.

    Args:
        names: paths of slides, each with "#image=K" behind it where an image is chosen.
        reader: name of the reader, or "auto".
        folder: of the tissue mask cache; None: the user's.
        rule: how pixels become RGB; without the right one a slide cannot be opened.
    """
    log.info("reading the headers of %d slides", len(names))
    kept = KeptFacts(default_folder() if folder is None else folder, reader, rule)
    pack = HeaderPack(kept.folder, names, kept.for_all)
    kept.packed = pack.read()
    facts = in_threads(kept.facts, names)
    _pack(kept, pack)
    return facts


def pack_known(
    names: Sequence[str], reader: str, folder: Path | None, rule: PixelRule = AS_STORED
) -> None:
    """Have the facts that are known of these slides in one file, where `header_facts` looks first.

    No slide is opened. The arguments are those of `header_facts`.
    """
    kept = KeptFacts(default_folder() if folder is None else folder, reader, rule)
    pack = HeaderPack(kept.folder, names, kept.for_all)
    kept.packed = pack.read()
    in_threads(kept.known, names)
    _pack(kept, pack)


def _pack(kept: KeptFacts, pack: HeaderPack) -> None:
    if kept.found.keys() != kept.packed.keys():
        try:
            pack.write(kept.found)
        except OSError as error:
            kept.complain(error)


def in_threads(look: Callable[[str], Fact], names: Sequence[str]) -> list[Fact]:
    """What `look` says of each slide, in the order of their names; what it raises is raised.

    Python waits for the threads of an executor, also at its end; one that a file server keeps in
    the kernel never comes back, and Ctrl-C must end the wait for it.
    """
    # Filled here, emptied by all threads; each puts its name into `in_hand`, which is emptied here.
    waiting = deque(enumerate(names))
    in_hand: dict[int, str] = {}
    answers: SimpleQueue[tuple[int, Fact | _Raised]] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                index, name = waiting.popleft()
            except IndexError:
                return
            in_hand[index] = name
            try:
                answers.put((index, look(name)))
            except BaseException as error:
                answers.put((index, _Raised(error)))

    threads = [
        threading.Thread(target=work, name=f"chunkdl-headers-{number}", daemon=True)
        for number in range(min(THREADS, len(names)))
    ]
    found: dict[int, Fact] = {}
    try:
        for thread in threads:
            thread.start()
        while len(found) < len(names):
            try:
                index, fact = answers.get(timeout=SILENCE_S)
            except Empty:
                _tell_waiting(list(in_hand.values()))
                continue
            del in_hand[index]
            if isinstance(fact, _Raised):
                raise fact.error
            found[index] = fact
    finally:
        waiting.clear()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(len(names))]


@dataclasses.dataclass(frozen=True, slots=True)
class _Raised:
    """What came instead of an answer; an error of a slide may be an answer."""

    error: BaseException


def _tell_waiting(names: Sequence[str]) -> None:
    shown = ", ".join(map(printable, names[:_MOST_NAMED]))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    log.warning(
        "nothing was found out about any slide for %g s; the file server may not respond. Waiting "
        "for %s%s",
        SILENCE_S,
        shown,
        more,
    )


class KeptFacts:
    """The facts on disk; used by many threads at a time.

    Args:
        folder: where they lie; made when first needed.
        reader: name of the reader, or "auto".
        rule: how pixels become RGB.
    """

    def __init__(self, folder: Path, reader: str, rule: PixelRule) -> None:
        self.folder = folder
        self.packed: dict[bytes, bytes] = {}
        """Encoded facts that are known already, by the key of their slide; not changed."""
        self.found: dict[bytes, bytes] = {}
        """Those that were asked for; all threads put theirs in."""
        self._reader = reader
        self._rule = rule
        self._lock = threading.Lock()
        self._complained = False
        """Of all threads, changed under the lock."""
        # One look at a folder serves all the slides in it.
        self._states_in = functools.cache(_states_in)
        self._real_folder = functools.cache(os.path.realpath)
        self.for_all = [_VERSION, _code_of_readers(), reader.encode(), repr(rule).encode()]

    def facts(self, name: str) -> HeaderFacts:
        """The facts of a slide, from disk if they are there and sound, else from the slide."""
        try:
            key = self.key(name)
        except OSError as error:
            return SlideError(f"the file cannot be used: {error.strerror}", slide=name)
        info = self._kept(name, key)
        if info is not None:
            return info
        try:
            slide = open_slide(name, self._reader, self._rule)
        except SlideError as error:
            return error
        info = slide.info
        slide.close()
        info = dataclasses.replace(info, path=name)
        self.keep(name, info, key)
        return info

    def known(self, name: str) -> SlideInfo | None:
        """The facts of a slide from disk; None: they are not there, or its file is not."""
        try:
            return self._kept(name, self.key(name))
        except OSError:
            return None

    def _kept(self, name: str, key: bytes) -> SlideInfo | None:
        file = self.folder / f"{key.hex()}.header"
        try:
            body = self.packed.get(key)
            if body is None:
                body = unsealed(read_at_most(file, _MOST_BYTES), _VERSION, key)
            info = dataclasses.replace(_DECODER.decode(body), path=name)
            self.found[key] = body
            return info
        except FileNotFoundError:
            log.debug("the header of %s could not be read yet", name)
        except OSError as error:
            self.complain(error)
        except ValueError as error:
            log.warning(
                "the kept header facts %s cannot be used, and the header is read again: %s",
                file,
                error,
            )
        return None

    def key(self, name: str) -> bytes:
        """Names what the facts of a slide depend on.

        Raises:
            OSError: the file, or one that belongs to it, is not there.
        """
        address = parse_address(name)
        real = self._real(address.path)
        parts = [
            *self.for_all,
            os.fsencode(real),
            state_of(real),
            b"" if address.image is None else b"image %d" % address.image,
        ]
        belonging = _folder_of_parts(real)
        if belonging is not None:
            parts += self._states_in(belonging)
        return key_of(parts)

    def forget_folders(self) -> None:
        """Look again into the folders of slides of several files, the next time."""
        self._states_in.cache_clear()

    def _real(self, path: str) -> str:
        """The path without links; those above it are followed once for all slides of a folder."""
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir) or os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(self._real_folder(folder), name)

    def keep(self, name: str, info: SlideInfo, key: bytes) -> None:
        """Keep the facts of a slide.

        Args:
            name: of the slide.
            info: what it said.
            key: of it, before it was opened.
        """
        file = self.folder / f"{key.hex()}.header"
        try:
            # A file that was replaced while it was read is not kept as what it was before.
            if self.key(name) == key:
                self.found[key] = body = _encoded(info)
                write_whole(file, sealed(_VERSION, key, body))
        except OSError as error:
            self.complain(error)

    def complain(self, error: OSError) -> None:
        """Warn of an unusable folder, once: it concerns every slide alike."""
        with self._lock:
            first, self._complained = not self._complained, True
        if first:
            log.warning(
                "header facts cannot be kept in %s (%s); the headers of all slides are read again "
                "in every run unless another cache folder is given",
                self.folder,
                error,
            )


@functools.cache
def _code_of_readers() -> bytes:
    """Identifies the code that makes facts: what other code made is made anew."""
    root = Path(chunkdl.slides.__path__[0])
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _folder_of_parts(path: str) -> str | None:
    """The folder with the other files of a slide of several files, None for one of one file."""
    stem, suffix = os.path.splitext(path)
    if suffix.lower() == DICOM_SUFFIX:
        return os.path.dirname(path)
    if suffix.lower() == ".mrxs":
        return stem
    return path if os.path.isdir(path) else None


def _states_in(folder: str) -> tuple[bytes, ...]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    # A dead link beside the slide is not a part of it.
    paths = [path for name in names if os.path.exists(path := os.path.join(folder, name))]
    return tuple(os.fsencode(path) + b" " + state_of(path) for path in paths)


def _encoded(info: SlideInfo) -> bytes:
    """What is kept; the path is left out, for links to one file share its facts."""
    notes = tuple(printable(note) for note in info.notes)
    return msgspec.msgpack.encode(dataclasses.replace(info, path="", notes=notes))
