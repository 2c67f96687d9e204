"""A learned detector: a network in an ONNX file, run over the thumbnail in tiles."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from chunkdl.errors import ConfigError, HookError, SlideError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Checked, Scale, ScaledDetector

FINEST_MPP = 8.0
"""Of the thumbnails that there are."""
COARSER = 2.0
"""How much coarser than the model a thumbnail may be, because its slide is large."""
MOST_FILE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class OnnxTissue(ScaledDetector):
    """A segmentation network in an ONNX file (extra ``onnx``).

    It gets float32 of shape (1, 3, tile, tile): red, green and blue, 0 to 1, less `mean`, over
    `std`. It gives float32 of shape (1, channels, tile, tile). The thumbnail is resampled to `mpp`
    and cut into tiles; the outer `overlap` pixels of a tile are looked at and not used. Beyond the
    thumbnail its edge is repeated. So memory is that of the thumbnail and of one tile, whatever the
    slide.

    It runs on one core, in the loaders. Equal thumbnails have equal answers on equal processors;
    another kind of processor may round otherwise, and move cells whose answer is at the threshold.
    For streams that are the same on different machines, make the masks once and give them.

    Attributes:
        path: of the file; it must be there for every process. The key has a hash of its content.
        mpp: microns per pixel that the network was trained for, 8 to 64. Thumbnails have about 8;
            for finer networks, make the masks elsewhere and give them (``tissue_mask``).
        threshold: what the network gives for tissue is at least this.
        channel: that is compared with it.
        classes: instead, tissue is where the largest channel is one of these.
        mean, std: of red, green and blue, 0 to 1.
        tile: side of a tile, pixels, 32 to 2048.
        overlap: pixels, 0 to less than half of a tile.

    Raises:
        ConfigError: a parameter is out of its bounds, the file cannot be read, or onnxruntime is
            not installed.
    """

    path: str
    mpp: float
    threshold: float = 0.5
    channel: int = 0
    classes: tuple[int, ...] = ()
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tile: int = 512
    overlap: int = 64
    sha256: str = field(init=False, default="")

    name: ClassVar[str] = "onnx"

    def __post_init__(self) -> None:
        if find_spec("onnxruntime") is None:
            raise ConfigError(
                "the tissue detector onnx needs onnxruntime, which is not installed: "
                "pip install 'chunkdl[onnx]'"
            )
        Checked(self).number("mpp", FINEST_MPP, 64).number("threshold", -1e6, 1e6)
        Checked(self).whole("channel", 0, 1000).whole("tile", 32, 2048)
        Checked(self).whole("overlap", 0, (self.tile - 1) // 2)
        object.__setattr__(self, "classes", _classes(self.classes))
        for name, least in (("mean", -10.0), ("std", 1e-3)):
            object.__setattr__(self, name, _colours(name, getattr(self, name), least))
        if not isinstance(self.path, str | os.PathLike):
            raise ConfigError(f"tissue detector onnx: path={self.path!r:.80} is not a path")
        object.__setattr__(self, "path", os.path.abspath(self.path))
        try:
            object.__setattr__(self, "sha256", hashlib.sha256(_content(self.path)).hexdigest())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"tissue detector onnx: {self.path} cannot be used: {error}"
            ) from error

    @property
    def key(self) -> str:
        """Name, revision, parameters, and the content of the file in place of its path."""
        how = (self.sha256, self.mpp, self.threshold, self.channel, self.classes)
        return f"{self.name}/1 {(*how, self.mean, self.std, self.tile, self.overlap)!r}"

    def find(self, rgb: Pixels, scale: Scale) -> Cells:
        """See `ScaledDetector.find`.

        Raises:
            SlideError: its resolution is unknown, or it is too large for a thumbnail fine enough.
            HookError: the file is another one now, or the network cannot be run.
        """
        # Imported here because few need it.
        from PIL import Image

        if scale.microns is None:
            raise SlideError(
                "its resolution is unknown, so the tissue network cannot be shown its microns per "
                "pixel (give mpp in the dataset)",
                slide=scale.slide,
            )
        if scale.microns > COARSER * self.mpp:
            raise SlideError(
                f"it is so large that its thumbnail has {scale.microns:.3g} microns per pixel, "
                f"more than {COARSER:g} times the {self.mpp:g} of the tissue network (give a "
                "tissue_mask)",
                slide=scale.slide,
            )
        session = self._session(scale.slide)
        height, width = rgb.shape[:2]
        wide, high = (max(1, round(side * scale.microns / self.mpp)) for side in (width, height))
        image = np.asarray(Image.fromarray(rgb).resize((wide, high), Image.Resampling.BILINEAR))
        found = self._in_tiles(session, image, scale.slide)
        down = np.arange(height) * high // height
        across = np.arange(width) * wide // width
        return np.ascontiguousarray(found[down[:, None], across])

    def _session(self, slide: str) -> Any:
        # Imported here because it is an extra.
        import onnxruntime

        try:
            content = _content(self.path)
        except (OSError, ValueError) as error:
            raise self._error(f"its file cannot be used: {error}", slide) from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise self._error("its file is another one than when the stream was made", slide)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise self._error(f"{type(error).__name__}: {error}", slide) from error

    def _in_tiles(self, session: Any, image: Pixels, slide: str) -> Cells:
        height, width = image.shape[:2]
        step = self.tile - 2 * self.overlap
        found = np.empty((height, width), np.bool_)
        entry = session.get_inputs()[0].name
        mean, std = (np.array(three, np.float32)[:, None, None] for three in (self.mean, self.std))
        for top in range(0, height, step):
            down = np.clip(np.arange(top, top + self.tile) - self.overlap, 0, height - 1)
            for left in range(0, width, step):
                across = np.clip(np.arange(left, left + self.tile) - self.overlap, 0, width - 1)
                pixels = image[down[:, None], across].transpose(2, 0, 1)
                shown = (pixels.astype(np.float32) / np.float32(255) - mean) / std
                part = found[top : top + step, left : left + step]
                inside = slice(self.overlap, self.overlap + step)
                answer = self._answer(session, entry, shown[None], slide)[inside, inside]
                part[...] = answer[: part.shape[0], : part.shape[1]]
        return found

    def _answer(
        self, session: Any, entry: str, shown: npt.NDArray[np.float32], slide: str
    ) -> Cells:
        """Tissue of one tile, shape (tile, tile)."""
        try:
            given = np.asarray(session.run(None, {entry: np.ascontiguousarray(shown)})[0])
        except Exception as error:
            raise self._error(f"{type(error).__name__}: {error}", slide) from error
        needed = max((*self.classes, self.channel)) + 1
        shape = given.shape
        if len(shape) != 4 or shape[0] != 1 or shape[2:] != shown.shape[2:] or shape[1] < needed:
            raise self._error(
                f"it gave shape {shape} for {shown.shape}; it has to give (1, channels, "
                f"{self.tile}, {self.tile}) with at least {needed} channels",
                slide,
            )
        if not np.isfinite(given).all():
            raise self._error("it gave numbers that are not finite", slide)
        if self.classes:
            return np.isin(given[0].argmax(axis=0), self.classes)
        return np.asarray(given[0, self.channel] >= self.threshold)

    def _error(self, what: str, slide: str) -> HookError:
        hook = f"tissue onnx {self.path}"[:200]
        return HookError(f"{what}; on the thumbnail of slide {slide or 'unknown'}", hook=hook)


def _content(path: str) -> bytes:
    """The file; ValueError: it is too large."""
    if (size := Path(path).stat().st_size) > MOST_FILE_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MOST_FILE_BYTES}")
    return Path(path).read_bytes()


def _colours(name: str, given: Sequence[float], least: float) -> tuple[float, ...]:
    try:
        three = tuple(float(one) for one in given)
    except (TypeError, ValueError):
        three = ()
    if len(three) != 3 or not all(math.isfinite(one) and least <= one <= 10 for one in three):
        raise ConfigError(
            f"tissue detector onnx: {name} must be three numbers from {least:g} to 10, for red, "
            f"green and blue, not {given!r:.80}"
        )
    return three


def _classes(given: Sequence[int]) -> tuple[int, ...]:
    whole = isinstance(given, list | tuple) and all(
        isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 1000 for one in given
    )
    if not whole:
        raise ConfigError(
            f"tissue detector onnx: classes must be channel numbers such as [0], not {given!r:.80}"
        )
    return tuple(sorted(set(given)))
