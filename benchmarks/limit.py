"""The decode limit: how fast this machine turns JPEG tiles into pixels when it does nothing else.

No chunkdl code runs here. Every process loops over its share of the level-0 tiles that hold tissue,
already read into memory, and decodes each into one reused buffer with libjpeg-turbo. All slides
give equally many pixels, as they do to a loader that draws slides uniformly. A loader that delivers
as many pixels as it decodes cannot be faster than this.

Tissue is defined once, here, for the limit and for the DataLoader baseline: on the coarsest level,
pixels whose HSV saturation is above Otsu's threshold of that image (N. Otsu, "A threshold selection
method from gray-level histograms", 1979). A tile holds tissue when at least `TISSUE_SHARE` of the
mask pixels under it do: tiles of bare glass decode about twice as fast and would flatter the limit.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from skimage.filters import threshold_otsu

TISSUE_SHARE = 0.4
START_DEADLINE_S = 60.0
PIXELS_PER_TURN = 4 * 1024 * 1024
"""Pixels decoded from one slide before the next has its turn; a multiple of every tile's."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of one slide, still compressed.

    Attributes:
        shape: of a decoded tile, (height, width, 3).
        tables: the JPEG tables that the tiles share, None where each tile has its own.
        colorspace: of the compressed pixels, as imagecodecs names it.
        streams: one JPEG stream per tile.
    """

    shape: tuple[int, int, int]
    tables: bytes | None
    colorspace: str
    streams: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """What was decoded in the measured time, by all processes together."""

    pixels: int
    seconds: float


def tissue_mask(slide: Path) -> npt.NDArray[np.bool_]:
    """Where the tissue is, on the coarsest level of the slide; shape (height, width)."""
    with tifffile.TiffFile(slide) as file:
        rgb = file.series[0].levels[-1].asarray()
    brightest = rgb.max(axis=2).astype(np.float32)
    saturation = 1.0 - rgb.min(axis=2) / np.maximum(brightest, 1.0)
    threshold = threshold_otsu(saturation)  # type: ignore[no-untyped-call]
    return np.asarray(saturation > threshold)


def tissue_tiles(slide: Path) -> Tiles:
    """The level-0 tiles of `slide` that hold tissue.

    Raises:
        ValueError: the slide is not a tiled TIFF of JPEG tiles.
    """
    mask = tissue_mask(slide)
    with tifffile.TiffFile(slide) as file:
        page = file.series[0].levels[0].keyframe
        if not page.is_tiled or page.compression != tifffile.COMPRESSION.JPEG:
            raise ValueError(f"{slide} has no JPEG tiles; name a slide that has")
        streams = []
        columns = -(-page.imagewidth // page.tilewidth)
        for index, (offset, size) in enumerate(
            zip(page.dataoffsets, page.databytecounts, strict=True)
        ):
            y, x = np.multiply(divmod(index, columns), (page.tilelength, page.tilewidth))
            top, bottom = scaled(y, page.tilelength, page.imagelength, mask.shape[0])
            left, right = scaled(x, page.tilewidth, page.imagewidth, mask.shape[1])
            if mask[top:bottom, left:right].mean() >= TISSUE_SHARE:
                file.filehandle.seek(offset)
                streams.append(file.filehandle.read(size))
        return Tiles(
            shape=(page.tilelength, page.tilewidth, 3),
            tables=page.jpegtables,
            colorspace=tifffile.PHOTOMETRIC(page.photometric).name,
            streams=tuple(streams),
        )


def scaled(start: int, length: int, whole: int, mask_whole: int) -> tuple[int, int]:
    """The mask pixels [first, last) under `length` pixels from `start`, at least one."""
    first = start * mask_whole // whole
    last = -(-min(start + length, whole) * mask_whole // whole)
    return first, max(last, first + 1)


def buffer(shape: tuple[int, int, int], aligned: bool) -> Pixels:
    """Memory for one tile, whose address is, or is not, a multiple of 32 bytes."""
    size = int(np.prod(shape))
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 32 + (0 if aligned else 16)
    return memory[start : start + size].reshape(shape)


def decode(tiles: Tiles, streams: Iterable[bytes], out: Pixels) -> None:
    """Decode `streams` of `tiles`, one after the other, into `out`."""
    for stream in streams:
        imagecodecs.jpeg8_decode(
            stream,
            tables=tiles.tables,
            colorspace=tiles.colorspace,
            outcolorspace="RGB",
            out=out,
        )


def faster_buffers(share: Sequence[Tiles], seconds: float) -> list[Pixels]:
    """One buffer per slide, aligned as is faster here; tried in turns for `seconds`.

    For rows aligned to 32 bytes, libjpeg-turbo's AVX2 colour conversion uses stores that bypass the
    caches (``vmovntdq`` in jdcolext-avx2.asm), which is slower on some machines.
    """
    buffers = {
        aligned: [buffer(tiles.shape, aligned) for tiles in share] for aligned in (True, False)
    }
    spent = dict.fromkeys(buffers, 0.0)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(spent.values()):
        for aligned, outs in buffers.items():
            start = time.thread_time()
            for tiles, out in zip(share, outs, strict=True):
                decode(tiles, tiles.streams[:8], out)
            spent[aligned] += time.thread_time() - start
    return buffers[spent[True] < spent[False]]


def work(
    share: Sequence[Tiles], warmup: float, seconds: float, ready: Barrier, pipe: Connection
) -> None:
    """One process: warm up, wait for the others, decode for `seconds`, send what was done."""
    buffers = faster_buffers(share, warmup)
    endless = [itertools.cycle(tiles.streams) for tiles in share]
    ready.wait(START_DEADLINE_S + warmup)
    start = time.perf_counter()
    pixels = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        for tiles, streams, out in zip(share, endless, buffers, strict=True):
            count = PIXELS_PER_TURN // (out.shape[0] * out.shape[1])
            decode(tiles, itertools.islice(streams, count), out)
            pixels += count * out.shape[0] * out.shape[1]
    pipe.send((pixels, elapsed))


def shares(slides: Sequence[Path], processes: int) -> list[list[Tiles]]:
    """The tissue tiles of all slides, dealt out to the processes."""
    all_tiles = [tissue_tiles(slide) for slide in slides]
    return [
        [
            Tiles(tiles.shape, tiles.tables, tiles.colorspace, tiles.streams[first::processes])
            for tiles in all_tiles
        ]
        for first in range(processes)
    ]


def decode_limit(slides: Sequence[Path], warmup: float, seconds: float) -> Decoded:
    """Decode tissue tiles in as many processes as there are cores for `seconds`."""
    context = multiprocessing.get_context("fork")
    processes = len(os.sched_getaffinity(0))
    ready = context.Barrier(processes)
    running = []
    for share in shares(slides, processes):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=work, args=(share, warmup, seconds, ready, sender), daemon=True
        )
        process.start()
        sender.close()
        running.append((process, receiver))
    # A process that dies closes its end, which ends recv with an EOFError.
    done: list[tuple[int, float]] = [receiver.recv() for _, receiver in running]
    for process, _ in running:
        process.join()
    # Processes end their last round at slightly different times, so rates are added, not pixels.
    longest = max(elapsed for _, elapsed in done)
    rate = sum(pixels / elapsed for pixels, elapsed in done)
    return Decoded(round(rate * longest), longest)
