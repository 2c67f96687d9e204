"""Every error that chunkdl raises, and errors as values that cross process borders.

::

    ChunkdlError
    ├── ConfigError (ValueError)        an argument is wrong; nothing was started
    │   ├── MemoryLimitError            the configuration needs more memory than it may take
    │   └── AddressInUse                another service, or another program, is at the address
    ├── DatasetError (ValueError)       a patient, record or manifest row is wrong
    ├── AnnotationError                 a file of annotations cannot be used; names file, feature
    ├── SlideError                      a slide file cannot be used; names slide, level, region
    │   ├── NoTissueError               the slide was read and has no position with enough tissue
    │   │   └── NothingPassesError      it has some, and the pixel filter refuses all looked at
    │   └── ResolutionError             the slide cannot give the resolution that was asked for
    ├── StateError (ValueError)         a saved state belongs to another stream
    ├── WorkerError                     a worker process failed
    │   ├── WorkerDied                  it ended without an error (signal, exit code)
    │   ├── WorkerFailed                its code raised; the cause has its traceback
    │   └── HookError                   the user's code raised; names hook and patient
    │       └── HookTimeout             the user's code did not return in time
    ├── ServiceDied                     the coordinator process, or the service, has died
    ├── ServiceRefused                  the service does not accept this consumer; it says why
    ├── ProtocolError                   a message broke the protocol
    │   └── OtherVersion                it comes from another version of chunkdl
    ├── PackingError                    an object cannot be pickled, or is too large
    ├── GetTimeout (TimeoutError)       get() got no batch within its timeout
    ├── EndOfStream (StopIteration)     the finite stream has delivered everything
    └── Closed                          the loader was closed, or a later iteration has begun

Rules of this file: the message is the only positional argument of every class, so that every
error survives pickling; what else an error knows is a keyword and an attribute.
"""

from __future__ import annotations

import os
import traceback
from typing import Self

import msgspec

from chunkdl.system.printing import file_name_bytes, printable


class ChunkdlError(Exception):
    """Base of every error that chunkdl raises; its text can be printed whatever names are in it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class ConfigError(ChunkdlError, ValueError):
    """An argument is wrong; nothing was started. The message says what to change."""


class MemoryLimitError(ConfigError):
    """The configuration needs more memory than its limit or the machine allows."""


class AddressInUse(ConfigError):
    """A service cannot listen at its address: another service, or another program, is there."""


class DatasetError(ChunkdlError, ValueError):
    """A patient, a record or a manifest row is wrong; the message names it."""


class AnnotationError(ChunkdlError):
    """A file of annotations cannot be used, or it is not clear which file is meant.

    Attributes:
        file: path of the file, empty where it is about none.
        feature: place of the feature in the file, counted from 0, and its name; empty where it is
            about the whole file.
    """

    def __init__(self, message: str = "", *, file: str = "", feature: str = "") -> None:
        where = [f"file {file}"] if file else []
        if feature:
            where.append(f"feature {feature}")
        super().__init__(f"{message} [{', '.join(where)}]" if where else message)
        self.file = file
        self.feature = feature


class SlideError(ChunkdlError):
    """A slide file cannot be used.

    Attributes:
        slide: path of the slide.
        level: pyramid level that was being read, None while opening.
        region: (x, y, width, height) in pixels of that level, None while opening.
    """

    def __init__(
        self,
        message: str = "",
        *,
        slide: str = "",
        level: int | None = None,
        region: tuple[int, int, int, int] | None = None,
    ) -> None:
        where = [f"slide {slide}"] if slide else []
        if level is not None:
            where.append(f"level {level}")
        if region is not None:
            x, y, width, height = region
            where.append(f"region {width}x{height} at ({x}, {y})")
        super().__init__(f"{message} [{', '.join(where)}]" if where else message)
        self.slide = slide
        self.level = level
        self.region = region

    @property
    def may_pass(self) -> bool:
        """Whether the system did not give the file now, and not the file is wrong."""
        cause: BaseException | None = self
        while cause is not None:
            # Libraries raise OSError without a number for what they do not understand.
            if isinstance(cause, OSError) and cause.errno is not None:
                return True
            cause = cause.__cause__
        return False


class NoTissueError(SlideError):
    """The slide was read and has no position with enough tissue."""


class NothingPassesError(NoTissueError):
    """The slide has positions with tissue, and the pixel filter refuses all that were looked at."""


class ResolutionError(SlideError):
    """The slide cannot give the resolution that was asked for."""


class StateError(ChunkdlError, ValueError):
    """A saved state belongs to another stream, or is not a state at all."""


class WorkerError(ChunkdlError):
    """A worker process failed."""


class WorkerDied(WorkerError):
    """A worker ended without an error; the message has the signal or the exit code."""


class WorkerFailed(WorkerError):
    """Code in a worker raised; ``__cause__`` is a `RemoteTraceback`."""


class HookError(WorkerError):
    """A hook, transform, policy or collate function of the user raised.

    Attributes:
        hook: class and method, or the name of the function.
        patient: name of the patient it was about, empty for none.
        kind: name of the class of what it raised.
    """

    def __init__(
        self, message: str = "", *, hook: str = "", patient: str = "", kind: str = ""
    ) -> None:
        where = [hook] if hook else []
        if patient:
            where.append(f"patient {patient}")
        super().__init__(f"{message} [{', '.join(where)}]" if where else message)
        self.hook = hook
        self.patient = patient
        self.kind = kind


class HookTimeout(HookError):
    """The user's code did not return in time; the message has its stack."""


class ServiceDied(ChunkdlError):
    """The coordinator process has died, or the service no longer answers."""


class ServiceRefused(ChunkdlError):
    """The service does not accept this consumer, or ended its session; the message says why."""


class ProtocolError(ChunkdlError):
    """A message broke the protocol."""


class OtherVersion(ProtocolError):
    """A message has another version of the protocol; the text of this error names both."""


class PackingError(ChunkdlError):
    """An object cannot be put into shared memory: it cannot be pickled, or is too large.

    Attributes:
        wanted_bytes: its size; None if the size is not the reason.
        available_bytes: the size that is available; None if the size is not the reason.
    """

    def __init__(
        self,
        message: str = "",
        *,
        wanted_bytes: int | None = None,
        available_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        self.wanted_bytes = wanted_bytes
        self.available_bytes = available_bytes


class GetTimeout(ChunkdlError, TimeoutError):
    """get() got no batch within its timeout."""


class EndOfStream(ChunkdlError, StopIteration):
    """The finite stream has delivered everything."""


class Closed(ChunkdlError):
    """The loader was closed, or a later iteration has begun; there are no more batches here."""


class RemoteTraceback(Exception):
    """Carries the formatted traceback of another process, so that a report shows both."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def _cut(text: str, part: slice) -> str:
    """A part of a text, bounds in bytes; names of files may hold bytes that no text may have."""
    return text.encode(errors="backslashreplace")[part].decode(errors="ignore")


def _name_of(kind: type[BaseException]) -> str:
    # A class of the user's may have a name of ours.
    ours = kind.__module__ in (__name__, "builtins")
    name = kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"
    return _cut(name, slice(1_000))


class Failure(msgspec.Struct, frozen=True):
    """An error as a value: plain data, so that no process unpickles a class it does not have."""

    kind: str
    """Class name, with its module where that is not this one or Python's own; only a name of this
    module is rebuilt as that class."""
    message: str
    traceback: str
    slide: bytes = b""
    """Path as in the file system: it may be no UTF-8."""
    level: int | None = None
    region: tuple[int, int, int, int] | None = None
    hook: str = ""
    patient: str = ""
    raised: str = ""
    wanted_bytes: int | None = None
    available_bytes: int | None = None
    file: bytes = b""
    """Path of a file of annotations, as in the file system."""
    feature: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The failure that describes `error`, cut so that it fits into one message."""
        text = "".join(traceback.format_exception(error))
        slide = error if isinstance(error, SlideError) else SlideError()
        hook = error if isinstance(error, HookError) else HookError()
        packing = error if isinstance(error, PackingError) else PackingError()
        drawn = error if isinstance(error, AnnotationError) else AnnotationError()
        return cls(
            kind=_name_of(type(error)),
            message=_cut(str(error), slice(4_000)),
            traceback=_cut(text, slice(-16_000, None)),
            slide=file_name_bytes(slide.slide)[:4_000],
            level=slide.level,
            region=slide.region,
            hook=_cut(hook.hook, slice(1_000)),
            patient=_cut(hook.patient, slice(1_000)),
            raised=_cut(hook.kind, slice(1_000)),
            wanted_bytes=packing.wanted_bytes,
            available_bytes=packing.available_bytes,
            file=file_name_bytes(drawn.file)[:4_000],
            feature=_cut(drawn.feature, slice(1_000)),
        )

    def to_error(self) -> ChunkdlError:
        """The error to raise on this side; its cause shows the remote traceback."""
        known = globals().get(self.kind)
        error: ChunkdlError
        if isinstance(known, type) and issubclass(known, ChunkdlError):
            error = known(self.message)
            if isinstance(error, SlideError):
                error.slide = os.fsdecode(self.slide)
                error.level, error.region = self.level, self.region
            if isinstance(error, HookError):
                error.hook, error.patient, error.kind = self.hook, self.patient, self.raised
            if isinstance(error, AnnotationError):
                error.file, error.feature = os.fsdecode(self.file), self.feature
            if isinstance(error, PackingError):
                error.wanted_bytes = self.wanted_bytes
                error.available_bytes = self.available_bytes
        else:
            error = WorkerFailed(f"{self.kind}: {self.message}")
        error.__cause__ = RemoteTraceback(self.traceback)
        return error
