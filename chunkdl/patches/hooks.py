"""The two classes that a user overrides: what a BigChunk is, and what a SmallChunk of it is.

::

    class MyLoader(BigChunkLoader):
        def extract_bigchunk(self, last_message):
            region = self.read_region(x, y, 5000, 5000, level=0)
            return BigChunk(region, {"x": x, "y": y}, self.patient)

    class MyCollector(SmallChunkCollector):
        def extract_smallchunk(self, call_count, bigchunk, last_message):
            left = self.rng.integers(5000 - 224)
            ...
            return SmallChunk(crop, {"left": left}, bigchunk.dict_info_of_bigchunk, self.patient)

Names, arguments and meaning are PyDmed's. The classes have no ABC metaclass, because PyDmed's users
mark their overrides with ``@abstractmethod``. A new object is made for every BigChunk, in a worker
process, and its hooks are called with positional arguments. Every generator that they draw from,
global or their own, is seeded from the plan before every call (`chunkdl.patches.seeded_code`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from chunkdl.dataset.patients import Patient, Record
from chunkdl.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from chunkdl.patches.patient_copies import Changes
    from chunkdl.sampling.windows import Draws, Window
    from chunkdl.slides.slide import Slide
    from chunkdl.slides.tissue.mask import TissueMask
    from chunkdl.transport.memory.layouts import Strips


@dataclass(frozen=True, slots=True)
class Place:
    """Where the plan takes a SmallChunk.

    Attributes:
        x, y: top-left corner, level-0 pixels.
        level: pyramid level that was read.
        mpp: microns per pixel, NaN where unknown.
        tissue_fraction: share of tissue, 0 to 1.
        left, top: corner inside the window of the BigChunk, pixels of the stream's resolution.
        side_px: side of a SmallChunk, pixels of the stream's resolution.
    """

    x: int
    y: int
    level: int
    mpp: float
    tissue_fraction: float
    left: int
    top: int
    side_px: int


class Exhausted(Enum):
    """The type of `EXHAUSTED`."""

    EXHAUSTED = "exhausted"


EXHAUSTED = Exhausted.EXHAUSTED
"""From `extract_smallchunk`: this BigChunk gives no more SmallChunks; another one takes its place,
of the same patient if it gave any. From `extract_bigchunk`: this patient gives no more BigChunks.
"""

EMPTY_STATUS = "TODO:packagename reserverd: empty cache"
"""What PyDmed calls the status of a collector that has not set any."""


class LoaderTools(Protocol):
    """What the engine does for one `extract_bigchunk`; see the same names of `BigChunkLoader`."""

    @property
    def rng(self) -> np.random.Generator: ...

    @property
    def slide(self) -> Slide: ...

    @property
    def tissue_mask(self) -> TissueMask: ...

    @property
    def window(self) -> Window: ...

    @property
    def positions(self) -> Draws: ...

    @property
    def described(self) -> Mapping[str, Any]: ...

    @property
    def log(self) -> Callable[[str], None]: ...

    def read_region(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        resolution: tuple[int | None, float | None, float | None],
        record: Record | None,
    ) -> npt.NDArray[np.uint8]: ...

    def read_window(self) -> Strips: ...

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]: ...

    def open_file(self, path: str) -> Slide: ...


class CollectorTools(Protocol):
    """What the engine does for the SmallChunks of one BigChunk; see `SmallChunkCollector`."""

    @property
    def rng(self) -> np.random.Generator: ...

    @property
    def place(self) -> Place: ...

    @property
    def log(self) -> Callable[[str], None]: ...

    @property
    def changes(self) -> Callable[[Any], Changes | None]: ...

    def set_checkpoint(self, checkpoint: Any) -> None: ...

    def set_status(self, status: Any) -> None: ...


class BigChunkLoader:
    """Base class of your own loader, in a loader process: override `extract_bigchunk`.

    Args:
        patient: the patient whose BigChunk is loaded; a copy made for this load.
        queue_bigchunk, queue_logs: not used; they keep PyDmed's positional order.
        const_global_info: the user's settings, as given to `LightDL`.
        old_checkpoint: the checkpoint that the last load of this patient has set; None for the
            first load.
        last_message_from_root: the last message that was sent to this patient.
    """

    _tools: ClassVar[LoaderTools | None] = None
    copies_all_arrays: ClassVar[bool] = False
    """Whether large arrays of the patient are copied for each load, or are read-only; see
    `chunkdl.patches.patient_copies`."""

    def __init__(
        self,
        patient: Patient,
        queue_bigchunk: object = None,
        const_global_info: Any = None,
        queue_logs: object = None,
        old_checkpoint: Any = None,
        last_message_from_root: Any = None,
    ) -> None:
        self.patient = patient
        self.const_global_info = const_global_info
        self._checkpoint = old_checkpoint
        self._message = last_message_from_root

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """One BigChunk of `self.patient`, or `EXHAUSTED`.

        Usually a `BigChunk`, an array, or a list or dict of these; it may be any object that can be
        pickled. Its arrays lie in shared memory and reach the collector without a copy. Arrays from
        `read_region` and `empty` are in shared memory from the start.

        Args:
            last_message_fromroot: the last message sent to this patient before the load, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must override extract_bigchunk")

    def get_checkpoint(self) -> Any:
        """The checkpoint that the last load of this patient has set; None before that."""
        return self._checkpoint

    def log(self, str_input: str) -> None:
        """Write a line to the log of the training process."""
        self._need().log(str_input)

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers for this BigChunk, from the plan."""
        return self._need().rng

    @property
    def slide(self) -> Slide:
        """The slide of the patient that the plan has chosen, open; do not close it."""
        return self._need().slide

    @property
    def tissue_mask(self) -> TissueMask:
        """The tissue of that slide, in the level-0 frame; cached on disk."""
        return self._need().tissue_mask

    @property
    def window(self) -> Window:
        """The region that the plan has drawn, in pixels of the stream's resolution."""
        return self._need().window

    @property
    def positions(self) -> Draws:
        """The corners that the plan has drawn inside the window, one per SmallChunk."""
        return self._need().positions

    def read_region(
        self,
        x: float,
        y: float,
        width: int,
        height: int,
        *,
        level: int | None = None,
        mpp: float | None = None,
        downsample: float | None = None,
        record: Record | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Read a region with the fast reader, straight into shared memory.

        Args:
            x, y: top-left corner, level-0 pixels.
            width, height: pixels of the wished resolution.
            level, mpp, downsample: the resolution, at most one; by default that of the stream.
            record: which slide of the patient; by default the one that the plan has chosen.

        Returns:
            uint8 (height, width, 3).

        Raises:
            SlideError: the region is not inside the slide, or the file is damaged there.
            PackingError: the slot has no room for it.
        """
        return self._need().read_region(x, y, width, height, (level, mpp, downsample), record)

    def read_window(self) -> Strips:
        """The window of the plan in shared memory; only tiles that `positions` touch are read."""
        return self._need().read_window()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike = "uint8") -> npt.NDArray[Any]:
        """An array in shared memory for you to fill; its content is undefined."""
        return self._need().empty(shape, dtype)

    @property
    def described(self) -> Mapping[str, Any]:
        """The info dict that the built-in loader gives to a BigChunk: slide and bigchunk."""
        return self._need().described

    def _need(self) -> LoaderTools:
        if self._tools is None:
            raise ConfigError(f"{type(self).__name__} can do this only in a loader process")
        return self._tools


class SmallChunkCollector:
    """Base class of your own collector, in a collector process: override `extract_smallchunk`.

    Args:
        patient: the patient whose BigChunk this collector crops; a copy made for this load.
        queue_smallchunks, type_bigchunkloader, queue_logs, queue_checkpoint: not used; they keep
            PyDmed's positional order.
        const_global_info: the user's settings, as given to `LightDL`.
        old_checkpoint: the checkpoint that the last load of this patient has set; None for the
            first load.
        last_message_from_root: the last message that was sent to this patient.
    """

    _tools: ClassVar[CollectorTools | None] = None
    copies_all_arrays: ClassVar[bool] = False
    """Whether large arrays of the patient are copied for each load, or are read-only; see
    `chunkdl.patches.patient_copies`."""
    nones_mean_no_more: ClassVar[bool] = False
    """Whether too many None in a row mean `EXHAUSTED`, if the patient gave something before."""

    def __init__(
        self,
        patient: Patient,
        queue_smallchunks: object = None,
        const_global_info: Any = None,
        type_bigchunkloader: object = None,
        queue_logs: object = None,
        old_checkpoint: Any = None,
        queue_checkpoint: object = None,
        last_message_from_root: Any = None,
    ) -> None:
        self.patient = patient
        self.const_global_info = const_global_info
        self._checkpoint = old_checkpoint
        self._message = last_message_from_root
        self._status: Any = EMPTY_STATUS

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """One SmallChunk, None for "not this time", or `EXHAUSTED`.

        Args:
            call_count: number of earlier calls for this BigChunk, including those that returned
                None.
            bigchunk: what `extract_bigchunk` returned.
            last_message_fromroot: the last message sent to this patient before the load, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must override extract_smallchunk")

    def _asked_by_engine(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """What the engine calls: `extract_smallchunk`; subclasses may change its result."""
        return self.extract_smallchunk(call_count, bigchunk, last_message_fromroot)

    def get_checkpoint(self) -> Any:
        """The checkpoint of this patient that was set last."""
        return self._checkpoint

    def set_checkpoint(self, checkpoint: Any) -> None:
        """Leave an object for the next load of this patient; it is never deleted.

        Raises:
            PackingError: it cannot be pickled, or is too large.
        """
        self._need().set_checkpoint(checkpoint)
        self._checkpoint = checkpoint

    def set_status(self, status: Any) -> None:
        """Set the status of this patient, which a policy can read.

        Raises:
            PackingError: it cannot be pickled, or is too large.
        """
        self._need().set_status(status)
        self._status = status

    def get_status(self) -> Any:
        """The status that was set last."""
        return self._status

    def get_flag_bigchunkloader_terminated(self) -> bool:
        """Whether the loading is over; always True, because this object exists only then."""
        return True

    def log(self, str_input: str) -> None:
        """Write a line to the log of the training process."""
        self._need().log(str_input)

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers for this call, from the plan."""
        return self._need().rng

    @property
    def place(self) -> Place:
        """Where the plan takes the SmallChunk of this call.

        Raises:
            ConfigError: the loader did not use the plan (`read_window` or `positions`).
        """
        return self._need().place

    def _need(self) -> CollectorTools:
        if self._tools is None:
            raise ConfigError(f"{type(self).__name__} can do this only in a collector process")
        return self._tools
