"""Annotations on disk: parsed once, then mapped by every process that needs them.

A file is named by everything that its content depends on, holds its own checksum and appears whole
or not at all, so readers need no lock: what cannot be trusted is made anew. Processes that need the
same annotations at the same time may both parse them. Whatever goes wrong with the folder costs
time and memory, never a run.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

from chunkdl.annotations.kept_file import VERSION, encoded, mapped
from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.reading import annotations_of_geojson, read_annotations
from chunkdl.annotations.shapes import Annotations
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.errors import AnnotationError
from chunkdl.slides.address import parse_address
from chunkdl.system.kept_files import cache_folder, key_of, state_of, write_whole
from chunkdl.system.steady_log import steady_logger

_LOG = steady_logger(__name__)


class _IsFile(Exception):
    """The user's function has returned this path."""


class AnnotationCache:
    """Annotations of slides, kept in a folder.

    Args:
        folder: where they lie, made when first needed; None: the user's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = cache_folder("annotations") if folder is None else folder
        self._complained = False

    @property
    def folder(self) -> Path:
        """Where they lie; it may not be there yet."""
        return self._folder

    def of_file(
        self,
        path: str | os.PathLike[str],
        options: ReadingOptions | None = None,
        *,
        size: tuple[int, int] | None = None,
        slide: str = "",
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> Annotations:
        """What `read_annotations` reads, mapped from disk if it is there and sound.

        A file counts as the same while its resolved path, size and time of change (ns) are.

        Raises:
            AnnotationError: as `read_annotations`.
            ConfigError: as `read_annotations`.
        """
        file, options = os.fspath(path), options or ReadingOptions()
        about = [os.fsencode(os.path.basename(slide)), *_how(options, size, offset)]

        def key() -> bytes:
            return _key(b"file", file, about)

        def read() -> Annotations:
            return read_annotations(file, options, size=size, slide=slide, offset=offset)

        found = self._kept_or_made(key, read, f"the annotations in {file}")
        assert found is not None, "a file has annotations, if only none"
        return found

    def of_call(
        self,
        own: OwnAnnotations,
        slide: str,
        options: ReadingOptions | None = None,
        *,
        size: tuple[int, int] | None = None,
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> Annotations | None:
        """What the user's function says of a slide; it is called once for slide and key, and where
        it returns a path each time: what is in the file may change.

        Args:
            own: the function and its key.
            slide: path of the slide, which the function gets.
            options: how a file or GeoJSON that it returns is read.
            size: width and height of level 0 of the slide, pixels.
            offset: is added to the coordinates of such a file or GeoJSON, as of `read_annotations`.

        Raises:
            AnnotationError: the slide is not there, or the function returned something else than a
                path, GeoJSON as dict or list, `Annotations` or None; or as `read_annotations`.
        """
        options = options or ReadingOptions()
        about = [own.key.encode(), *_how(options, size, offset)]
        if (image := parse_address(slide).image) is not None:
            about.append(b"image %d" % image)

        def key() -> bytes:
            return _key(b"call", parse_address(slide).path, about)

        def call() -> Annotations | None:
            answer = own.function(slide)
            if answer is None or isinstance(answer, Annotations):
                return answer
            if isinstance(answer, str | os.PathLike):
                raise _IsFile(os.fspath(answer))
            if isinstance(answer, dict | list):
                name = f"{own.key} of {slide}"
                return annotations_of_geojson(answer, name, options, size=size, offset=offset)
            raise AnnotationError(
                f"the function of annotations (key {own.key!r:.60}) returned "
                f"{type(answer).__name__} for the slide; it must return a path, GeoJSON as a dict "
                "or list, Annotations or None",
                file=slide,
            )

        try:
            return self._kept_or_made(key, call, f"the annotations of {slide}")
        except _IsFile as found:
            # By what is in the file, which may be another one the next time.
            path = found.args[0]
            return self.of_file(path, options, size=size, slide=slide, offset=offset)

    def _kept_or_made(
        self, key_now: Callable[[], bytes], make: Callable[[], Annotations | None], what: str
    ) -> Annotations | None:
        key = key_now()
        file = self._folder / f"{key.hex()}.shapes"
        try:
            return mapped(file, key)
        except FileNotFoundError:
            _LOG.debug("%s are read", what)
        except OSError as error:
            self._complain(error)
        except ValueError as error:
            _LOG.warning("%s cannot be used, and is made again: %s", file, error)
        made = make()
        if made is not None and made.notes:
            _LOG.warning("%s: %s", what, "; ".join(made.notes))
        # A file that was replaced while it was read is not kept as what it was before.
        if key_now() != key:
            return made
        try:
            write_whole(file, encoded(made, key))
            return mapped(file, key)
        except (OSError, ValueError) as error:
            self._complain(error)
            return made

    def _complain(self, error: Exception) -> None:
        """Warn of an unusable folder, once: it concerns every slide alike."""
        if not self._complained:
            self._complained = True
            _LOG.warning(
                "annotations cannot be kept in %s (%s); each process reads them again and has its "
                "own copy unless another cache folder is given",
                self._folder,
                error,
            )


def _how(
    options: ReadingOptions, size: tuple[int, int] | None, offset: tuple[float, float]
) -> list[bytes]:
    both = (float(offset[0]), float(offset[1]))
    return [options.key().encode(), repr(size).encode(), repr(both).encode()]


def _key(kind: bytes, path: str, about: list[bytes]) -> bytes:
    try:
        state = state_of(path)
    except OSError as error:
        raise AnnotationError(f"it cannot be read: {error.strerror}", file=path) from error
    return key_of([VERSION, kind, _code(), os.fsencode(os.path.realpath(path)), state, *about])


@functools.cache
def _code() -> bytes:
    """Identifies what makes annotations: what other code made is made anew."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    # Points and masks need none.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        digest.update(importlib.metadata.version("shapely").encode())
    return digest.digest()
