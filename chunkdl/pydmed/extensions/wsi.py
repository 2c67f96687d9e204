"""PyDmed's `extensions.wsi`: a loader that gives every tile of every image once, row by row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from chunkdl.dataset.patients import Patient, Record
from chunkdl.errors import ConfigError, DatasetError, SlideError
from chunkdl.patches.chunks import BigChunk, SmallChunk
from chunkdl.patches.hooks import EXHAUSTED
from chunkdl.pydmed import star
from chunkdl.pydmed.extensions.pdmcsv import (
    DefaultWSIxyWHvaltoRasterPoints,
    Tensor3DtoPdmcsvrow,
    pdmcsvtoarray,
)
from chunkdl.pydmed.hooks import BigChunkLoader, SmallChunkCollector
from chunkdl.pydmed.lightdl import LightDL
from chunkdl.pydmed.schedules import OverriddenSchedule
from chunkdl.sampling.policies.in_turn import RoundRobin
from chunkdl.sampling.policies.policy import Policy
from chunkdl.sampling.policies.quota import Quota
from chunkdl.slides.slide import Slide

__all__ = [
    "DefaultWSIxyWHvaltoRasterPoints",
    "SlidingWindowBigChunkLoader",
    "SlidingWindowDL",
    "SlidingWindowSmallChunkCollector",
    "Tensor3DtoPdmcsvrow",
    "default_func_patient_to_fnameimage",
    "pdmcsvtoarray",
    *star.EXTENSIONS_WSI,
]

__getattr__ = star.importer(__name__, star.EXTENSIONS_WSI)

STATUS_BUSY = "busy"
STATUS_IDLE = "idle"
STATUS_IDLEFINISHED = "idlefinished"
UNTIL_EXHAUSTED = 10**9
"""SmallChunks per BigChunk that no strip has: each ends when it has no more tiles."""

LevelOf = int | Callable[[Patient], int]


def default_func_patient_to_fnameimage(patient_input: Patient) -> str:
    """The path of the patient's record "H&E".

    Raises:
        DatasetError: the patient has no such record.
    """
    record = patient_input.dict_records.get("H&E")
    if not isinstance(record, Record):
        raise DatasetError(
            f'{patient_input!r} has no record "H&E"; give it one, or give '
            "func_patient_to_fnameimage"
        )
    return record.path


def tile_starts(length: int, kernel_size: int, stride: int) -> list[int]:
    """Where tiles begin along an axis: every `stride` pixels, and a last one that ends at the
    border where these do not reach it; none where the axis is shorter than a tile.

    Args:
        length: of the axis, pixels.
        kernel_size: side of a tile, pixels.
        stride: from one tile to the next, pixels.
    """
    last = length - kernel_size
    starts = list(range(0, last + 1, stride))
    if starts and starts[-1] < last:
        starts.append(last)
    return starts


class SlidingWindowBigChunkLoader(BigChunkLoader):
    """Reads the next strip of an image: the height of a tile, and the width of the level.

    The checkpoint of the patient, ``{"idx_bigrow": n}``, says which strip that is. Strips that
    cannot be read are logged and left out, unless the loader was made with ``on_error="raise"``.
    """

    def extract_bigchunk(self, last_message_fromroot: Any) -> Any:
        """The strip in a `BigChunk`, or `EXHAUSTED` where there is none left.

        Raises:
            SlideError: with ``on_error="raise"``, the image or the strip cannot be read.
        """
        settings = self.const_global_info
        path = settings["pdmreserved_func_patient_to_fnameimage"](self.patient)
        try:
            with closing(self._need().open_file(path)) as slide:
                return self._next_strip(slide)
        except SlideError as error:
            self._left_out("the image", error)
            return EXHAUSTED

    def _next_strip(self, slide: Slide) -> Any:
        settings = self.const_global_info
        kernel_size: int = settings["pdmreserved_kernel_size"]
        stride: int = settings["pdmreserved_stride"]
        level = level_of(self.patient, slide, settings)
        size = slide.info.levels[level]
        rows = tile_starts(size.height, kernel_size, stride)
        next_row = (self.get_checkpoint() or {"idx_bigrow": 0})["idx_bigrow"]
        if size.width < kernel_size or not rows:
            self.log(
                f"{self.patient!r} gives no tile: kernel_size={kernel_size}, but the image has "
                f"{size.width}x{size.height} pixels at level {level}"
            )
            return EXHAUSTED
        if next_row >= len(rows):
            return EXHAUSTED
        strip = self.empty((kernel_size, size.width, 3))
        for number in range(next_row, len(rows)):
            try:
                slide.read_into(strip, level, 0, rows[number])
            except SlideError as error:
                self._left_out(f"strip {number} of {len(rows)}", error)
                continue
            shifted = number > 0 and rows[number] - rows[number - 1] < stride
            overlap = kernel_size - (rows[number] - rows[number - 1]) if shifted else "None"
            info = {
                "W": size.width,
                "H": size.height,
                "x": 0,
                "y": rows[number],
                "WSI_W": size.width,
                "WSI_H": size.height,
                "downsample_of_patchlevel": size.downsample,
                "num_bigrows": len(rows),
                "idx_bigrow": number,
                "flag_from_auxbigrow": shifted,
                "horizbar_overlaptheprevpatch": overlap,
                "patch_levelidx": level,
            }
            return BigChunk(strip, info, self.patient)
        return EXHAUSTED

    def _left_out(self, what: str, error: SlideError) -> None:
        if self.const_global_info["pdmreserved_on_error"] == "raise":
            raise error
        self.log(f"{what} of {self.patient!r} is left out: {error}")


def level_of(patient: Patient, slide: Slide, settings: dict[str, Any]) -> int:
    """The level of the image that the tiles of a patient are taken from.

    Raises:
        ConfigError: the image has no such level.
    """
    wished: LevelOf = settings["pdmreserved_intorfunc_opslevel"]
    level = wished(patient) if callable(wished) else wished
    if not 0 <= level < len(slide.info.levels):
        raise ConfigError(
            f"intorfunc_opslevel says {level} for {patient!r}; but {slide.info.path} has the "
            f"levels 0 to {len(slide.info.levels) - 1}"
        )
    return level


class SlidingWindowSmallChunkCollector(SmallChunkCollector):
    """Gives the tiles of a strip from left to right.

    Attributes:
        tfms_onsmallchunkcollection: applied to each tile; as given to `SlidingWindowDL`, unless a
            subclass sets another.
        mode_trainortest: of the settings, "test" where they do not say it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = self.const_global_info
        self.tfms_onsmallchunkcollection = settings["pdmreserved_tfms_onsmallchunkcollection"]
        self.mode_trainortest = settings.get("mode_trainortest", "test")

    def extract_smallchunk(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """The next tile in a `SmallChunk`, or `EXHAUSTED` behind the last one."""
        settings, strip = self.const_global_info, bigchunk.dict_info_of_bigchunk
        kernel_size: int = settings["pdmreserved_kernel_size"]
        stride: int = settings["pdmreserved_stride"]
        if call_count == 0:
            # From the strip and not from the last checkpoint, so that a collector that does it
            # again after the death of another says the same.
            self.set_checkpoint({"idx_bigrow": strip["idx_bigrow"] + 1})
            self.set_status(STATUS_BUSY)
        columns = tile_starts(strip["W"], kernel_size, stride)
        if call_count >= len(columns):
            finished = strip["idx_bigrow"] + 1 == strip["num_bigrows"]
            self.set_status(STATUS_IDLEFINISHED if finished else STATUS_IDLE)
            return EXHAUSTED
        x = columns[call_count]
        shifted = call_count > 0 and x - columns[call_count - 1] < stride
        tile = bigchunk.data[:, x : x + kernel_size]
        transform = self.tfms_onsmallchunkcollection
        return SmallChunk(
            tile if transform is None else channels_last(transform(tile)),
            {
                "x": x,
                "y": 0,
                "patch_levelidx": strip["patch_levelidx"],
                "kernel_size": kernel_size,
                "flag_auxlastcol": shifted,
                "vertbar_overlaptheprevpatch": (
                    kernel_size - (x - columns[call_count - 1]) if shifted else "None"
                ),
            },
            strip,
            bigchunk.patient,
        )


def channels_last(data: Any) -> Any:
    """What a transform made, a tensor (channels, height, width) as an array (height, width,
    channels), as PyDmed hands it to `tfms`."""
    if not hasattr(data, "detach"):
        return data
    array = data.detach().cpu().numpy()
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if array.ndim == 3 else array


class SlidingWindowDL(LightDL):
    """Gives every tile of every patient's image exactly once, then the reserved string.

    Tiles begin every `stride` pixels in both axes; where these do not reach the border of the
    image, a last column and a last row that end there overlap those before. As many patients as
    `num_bigchunkloaders` are worked on at a time, each strip by strip.

    ``dict_info_of_bigchunk`` has the place of the strip (x, y) and the size of the image (W, H),
    ``dict_info_of_smallchunk`` the place of the tile in the strip (x), all in pixels of the level.

    Args:
        intorfunc_opslevel: the pyramid level; an int, or a function of the patient.
        kernel_size: side of a tile, pixels of that level.
        stride: from one tile to the next, pixels of that level.
        mininterval_loadnewbigchunk: has no effect; a strip is loaded when the one before is done.
        tfms_onsmallchunkcollection: applied to each tile, an array (height, width, 3) uint8, in
            the collectors and before `tfms`; a tensor (channels, height, width) that it returns
            comes out as an array (height, width, channels). None: nothing is applied.
        func_patient_to_fnameimage: the path of a patient's image; its record "H&E" without.
        lightdl, more: the arguments of `LightDL`; the two classes may be left out.

    Raises:
        ConfigError: `kernel_size` or `stride` is not at least 1.
    """

    def __init__(
        self,
        intorfunc_opslevel: LevelOf,
        kernel_size: int,
        stride: int,
        mininterval_loadnewbigchunk: float,
        tfms_onsmallchunkcollection: Callable[[Any], Any] | None,
        func_patient_to_fnameimage: Callable[[Patient], str] | None = None,
        *lightdl: Any,
        **more: Any,
    ) -> None:
        for name, value in (("kernel_size", kernel_size), ("stride", stride)):
            if value < 1:
                raise ConfigError(f"{name}={value} must be at least 1 pixel")
        if len(lightdl) < 2:
            more.setdefault("type_bigchunkloader", SlidingWindowBigChunkLoader)
        if len(lightdl) < 3:
            more.setdefault("type_smallchunkcollector", SlidingWindowSmallChunkCollector)
        more.setdefault("smallchunks_per_bigchunk", UNTIL_EXHAUSTED)
        super().__init__(*lightdl, **more)
        self.const_global_info = {
            **self.const_global_info,
            "pdmreserved_intorfunc_opslevel": intorfunc_opslevel,
            "pdmreserved_kernel_size": kernel_size,
            "pdmreserved_stride": stride,
            "pdmreserved_mininterval_loadnewbigchunk": mininterval_loadnewbigchunk,
            "pdmreserved_tfms_onsmallchunkcollection": tfms_onsmallchunkcollection,
            "pdmreserved_func_patient_to_fnameimage": (
                func_patient_to_fnameimage or default_func_patient_to_fnameimage
            ),
            "pdmreserved_on_error": more.get("on_error"),
        }

    def policy(self) -> Policy:
        """Each patient once, in order; or the user's methods where a subclass overrides them."""
        policy = super().policy()
        return policy if isinstance(policy, OverriddenSchedule) else Quota(RoundRobin(), 1)
