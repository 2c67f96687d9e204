"""Classes of a user that do what they should. Imports no torch: the workers need none."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl import (
    EXHAUSTED,
    BigChunk,
    BigChunkLoader,
    SmallChunk,
    SmallChunkCollector,
    TissueBigChunkLoader,
    TissueSmallChunkCollector,
)
from chunkdl.errors import ConfigError


class SameLoader(TissueBigChunkLoader):
    """The built-in loader as a class of the user."""


class SameCollector(TissueSmallChunkCollector):
    """The built-in collector as a class of the user."""


def random_transform(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Draws from both generators that need no torch; writes into its argument."""
    crop[:2] = np.random.randint(256)
    flipped = crop[:, ::-1] if np.random.random() < 0.5 else crop
    return np.asarray(flipped + np.float32(random.random()), np.float32)


class NumberLoader(BigChunkLoader):
    """A BigChunk that says of which load of which patient it is, and what it drew."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """A dict of arrays, and other objects; of the settings' `ends`, so many loads."""
        drawn = int(np.random.randint(2**31)), random.randrange(2**31)
        loads = (self.get_checkpoint() or {"loads": 0})["loads"]
        if loads >= self.const_global_info.get("ends", 10**9):
            return EXHAUSTED
        facts = np.array([self.patient.int_uniqueid, loads, *drawn])
        return {"facts": facts, "message": last_message_fromroot, "more": [np.arange(5.0), "text"]}


class NumberCollector(SmallChunkCollector):
    """Rows that say where they come from; state in self, None in between, a checkpoint."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.total = 0
        self.most = self.const_global_info.get("most", 10**9)

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """(patient, load, the loader's two numbers, this call's three, running total, call)."""
        self.total += call_count
        if call_count % 5 == 3:
            return None
        patient, load, by_numpy, by_random = bigchunk["facts"].tolist()
        if call_count >= self.most:
            return EXHAUSTED
        self.set_checkpoint({"loads": load + 1})
        self.set_status(load)
        drawn = int(np.random.randint(2**31)), random.randrange(2**31)
        own = int(self.rng.integers(2**31))
        row = np.array([patient, load, by_numpy, by_random, *drawn, own, self.total, call_count])
        info = {"message": bigchunk["message"], "tuple": (1, 2)}
        return SmallChunk(row, info, {"load": load}, self.patient)


@dataclass
class Notes:
    """An object with arrays in it."""

    image: npt.NDArray[Any]
    name: str


IMAGE = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
KINDS: dict[str, Any] = {
    "array": IMAGE,
    "float32": IMAGE.astype(np.float32) / 7,
    "part of an array": IMAGE[5:20, 7:30, ::-1],
    "memory map": None,
    "list": [IMAGE, IMAGE[:3].astype(np.int64)],
    "dict": {"a": {"b": [IMAGE]}, "c": "text", "d": (None, 3.5, {1, 2})},
    "object": Notes(IMAGE, "some notes"),
    "text": "only text",
    "nothing": None,
}


def described(value: Any) -> str:
    """A text that is the same for equal objects."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {int(np.asarray(value, np.float64).sum() * 1000)}"
    if isinstance(value, BigChunk):
        return f"BigChunk {described(value.data)} {value.dict_info_of_bigchunk}"
    if isinstance(value, Notes):
        return f"Notes {described(value.image)} {value.name}"
    if isinstance(value, dict):
        return str({name: described(part) for name, part in value.items()})
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {[described(part) for part in value]}"
    return repr(value)


def arrays_in(value: Any) -> list[npt.NDArray[Any]]:
    """The arrays of an object, at any depth."""
    if isinstance(value, np.ndarray):
        return [value]
    parts: list[Any] = []
    if isinstance(value, BigChunk | Notes):
        parts = list(vars(value).values())
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    return [array for part in parts for array in arrays_in(part)]


def in_shared_memory(array: npt.NDArray[Any]) -> bool:
    """Whether an array lies in the memory of the BigChunks, as the kernel has it."""
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[0] for line in maps if "memfd:chunkdl-bigchunks" in line]
    ends = [[int(end, 16) for end in text.split("-")] for text in ranges]
    return any(low <= array.ctypes.data and array.ctypes.data < high for low, high in ends)


class KindLoader(BigChunkLoader):
    """For each patient a BigChunk of another kind, plain and in a `BigChunk`."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """The kind of that name."""
        kind = str(self.patient.dict_records["kind"])
        value = KINDS[kind]
        if kind == "memory map":
            value = np.load(self.const_global_info["file"], mmap_mode="r")
        if self.patient.int_uniqueid % 2:
            return BigChunk(value, {"kind": kind}, self.patient)
        return value


class KindCollector(SmallChunkCollector):
    """Says what has arrived."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """Its description, and whether all its arrays lie in shared memory."""
        shared = all(map(in_shared_memory, arrays_in(bigchunk)))
        info = {"is": described(bigchunk), "shared": shared, "type": type(bigchunk).__name__}
        return SmallChunk(np.zeros(1), info, {}, self.patient)


class RegionLoader(BigChunkLoader):
    """Reads regions in every way there is; the first already in its constructor."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.first = self.read_region(256, 128, 64, 48)

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """Regions by level, mpp, downsample and record, and an array to be filled."""
        last = self.patient.slides[-1]
        empty = self.empty((3, 4), np.float32)
        empty[:] = self.rng.random()
        facts = [self.window.x, self.window.y, self.window.side_px, self.slide.info.levels[0].width]
        regions = {
            "first": self.first,
            "level": self.read_region(256, 128, 64, 48, level=1),
            "mpp": self.read_region(256, 128, 64, 48, mpp=1.0),
            "downsample": self.read_region(256, 128, 64, 48, downsample=2),
            "record": self.read_region(256, 128, 64, 48, record=last),
        }
        info = {"facts": facts, "slide": self.slide.info.path, "draws": len(self.positions.x)}
        return [BigChunk(regions, info, self.patient), empty]


class RegionCollector(SmallChunkCollector):
    """All regions below each other; whether they lie in shared memory; the place of the plan."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """The image, and what else there is to know."""
        whole, empty = bigchunk
        regions = list(whole.data.values())
        info = {
            "shared": all(map(in_shared_memory, [*regions, empty])),
            "empty": [float(empty.min()), float(empty.max())],
            "place": (self.place.left, self.place.top, self.place.x, self.place.side_px),
        }
        return SmallChunk(np.concatenate(regions), info, whole.dict_info_of_bigchunk, whole.patient)


class ScaleLoader(BigChunkLoader):
    """Reads a region of its patient's slide, named by the record, at one micron per pixel."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """The region."""
        (record,) = self.patient.slides
        region = self.read_region(256, 128, 64, 48, mpp=1.0, record=record)
        return BigChunk(region, {}, self.patient)


class ScaleCollector(SmallChunkCollector):
    """The region as it is."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """All of it."""
        return SmallChunk(bigchunk.data, {}, {}, self.patient)


class PatientLoader(BigChunkLoader):
    """Puts its patient into everything."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """Nothing but the patient, three times."""
        return BigChunk({"me": self.patient}, {"also me": self.patient}, self.patient)


class PatientCollector(SmallChunkCollector):
    """SmallChunks that are no images."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """An object with the patient in it."""
        assert bigchunk.data["me"] is self.patient is bigchunk.patient
        data = {"patient": self.patient, "array": np.arange(call_count + 1)}
        return SmallChunk(data, {}, {}, self.patient)


class BareLoader(BigChunkLoader):
    """For a patient without slides: what cannot be had is told."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """The messages of the errors."""
        told = []
        notes: Any = self.patient.dict_records["notes"]
        for ask in (
            lambda: self.slide,
            lambda: self.read_region(0, 0, 8, 8),
            lambda: self.read_region(0, 0, 8, 8, record=notes),
            self.read_window,
        ):
            try:
                ask()
            except ConfigError as error:
                told.append(str(error))
        return told


class BareCollector(SmallChunkCollector):
    """Passes on what the loader was told, and asks for a place that there is not."""

    def extract_smallchunk(
        self, call_count: int, bigchunk: Any, last_message_fromroot: Any
    ) -> SmallChunk:
        """In the info dict."""
        try:
            _ = self.place
        except ConfigError as error:
            bigchunk = [*bigchunk, str(error)]
        return SmallChunk(np.zeros(1), {"told": bigchunk}, {}, self.patient)


class GivenCollector(SmallChunkCollector):
    """SmallChunks with the data that the settings say, by the number of the call."""

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """Whatever `given` has for this call; the last one from then on."""
        given = self.const_global_info["given"]
        data = given[min(call_count, len(given) - 1)]
        if self.const_global_info.get("raw"):
            return data
        return SmallChunk(data, self.const_global_info.get("info", {}), {}, self.patient)


class GivenLoader(BigChunkLoader):
    """The BigChunk that the settings say."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """It is made here, so that it may be large, or nothing that can be pickled."""
        make = self.const_global_info.get("make")
        return make() if make is not None else {"a": 1}


class LoggingLoader(GivenLoader):
    """Logs a short and a long line."""

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """An object."""
        self.log(f"patient {self.patient.int_uniqueid} is loaded")
        self.log("x" * 10_000)
        return 1
