"""What a made slide shows: ragged islands of two kinds of tissue, and the look of each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.slides.slide import Pixels

BACKGROUND, STROMA, TUMOUR = 0, 1, 2
"""The values of `TissueMap.classes`."""

TEXTURE_PX = 512
COARSEST_PX = 2048
"""Size of the largest features of the tissue outlines, pixels of level 0."""
OCTAVES = 4
TISSUE_FRACTION = 0.35


class TissueMap:
    """Where the tissue of a tissue slide is; a pure function of the arguments.

    Args:
        width, height: pixels of level 0.
        seed: of the outlines and of the texture.
        tumour_fraction: part of the tissue that is TUMOUR, about; the rest is STROMA.
    """

    def __init__(self, width: int, height: int, *, seed: int, tumour_fraction: float) -> None:
        self.width, self.height = width, height
        rng = np.random.default_rng([seed, 1])
        self._outline = _Noise(rng, width, height)
        self._kind = _Noise(rng, width, height)
        step = max(1, min(width, height) // 256)
        outline = self._outline.at(np.arange(0, width, step), np.arange(0, height, step))
        kind = self._kind.at(np.arange(0, width, step), np.arange(0, height, step))
        self._outline_limit = float(np.quantile(outline, 1 - TISSUE_FRACTION))
        tissue = kind[outline > self._outline_limit]
        self._kind_limit = float(np.quantile(tissue, 1 - tumour_fraction))
        if tumour_fraction <= 0 or tumour_fraction >= 1:
            self._kind_limit = np.inf if tumour_fraction <= 0 else -np.inf

    def classes(
        self, x: int, y: int, width: int, height: int, downsample: float = 1.0
    ) -> npt.NDArray[np.uint8]:
        """BACKGROUND, STROMA or TUMOUR of a region, shape (height, width), uint8.

        Args:
            x, y, width, height: pixels of a level with that downsample; looked up at their middle.
            downsample: level-0 pixels per pixel.
        """
        columns = (np.arange(x, x + width) + 0.5) * downsample - 0.5
        rows = (np.arange(y, y + height) + 0.5) * downsample - 0.5
        tissue = self._outline.at(columns, rows) > self._outline_limit
        tumour = self._kind.at(columns, rows) > self._kind_limit
        return np.where(tissue, np.where(tumour, TUMOUR, STROMA), BACKGROUND).astype(np.uint8)


class _Noise:
    """Smooth noise over a slide: lattices of random values, each finer and weaker by a half."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        # A small slide has several islands as well.
        coarsest = max(64, min(COARSEST_PX, min(width, height) // 4))
        self._octaves = []
        for octave in range(OCTAVES):
            step = coarsest / 2**octave
            shape = (int(height / step) + 3, int(width / step) + 3)
            self._octaves.append((step, rng.random(shape, dtype=np.float32) / 2**octave))

    def at(self, columns: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The noise at every (row, column), shape (rows, columns), float32."""
        total = np.zeros((len(rows), len(columns)), np.float32)
        for step, lattice in self._octaves:
            first_row, down = _interpolation(rows, step, lattice.shape[0])
            first_column, across = _interpolation(columns, step, lattice.shape[1])
            part = lattice[
                first_row : first_row + down.shape[1], first_column : first_column + across.shape[1]
            ]
            total += down @ part @ across.T
        return total


def _interpolation(
    places: npt.NDArray[Any], step: float, nodes: int
) -> tuple[int, npt.NDArray[np.float32]]:
    """Smoothstep weights of the lattice nodes around the places: (first node, weights)."""
    lattice = np.clip(places / step, 0, nodes - 2)
    below = lattice.astype(np.int64)
    part = lattice - below
    smooth = part * part * (3 - 2 * part)
    first = int(below.min())
    weights = np.zeros((len(places), int(below.max()) - first + 2), np.float32)
    index = np.arange(len(places))
    weights[index, below - first] = 1 - smooth
    weights[index, below - first + 1] = smooth
    return first, weights


def textures(seed: int) -> tuple[Pixels, Pixels, Pixels]:
    """The look of BACKGROUND, STROMA and TUMOUR, each (TEXTURE_PX, TEXTURE_PX, 3), uint8.

    They can be laid side by side without a seam.
    """
    rng = np.random.default_rng([seed, 2])
    return _glass_texture(rng), _stroma_texture(rng), _tumour_texture(rng)


def _glass_texture(rng: np.random.Generator) -> Pixels:
    return _stain(np.full((TEXTURE_PX, TEXTURE_PX, 3), (243.0, 241.0, 244.0)), rng, 1.5)


def _stroma_texture(rng: np.random.Generator) -> Pixels:
    """Pink fibres and few nuclei."""
    fibres = _periodic(rng.standard_normal((TEXTURE_PX, TEXTURE_PX)), (3, 14))
    fibres /= np.abs(fibres).max()
    pixels = np.array((226, 160, 190)) + fibres[..., None] * (20, 45, 30)
    return _stain(_with_nuclei(rng, pixels, nuclei=120, radius=3.5), rng, 4)


def _tumour_texture(rng: np.random.Generator) -> Pixels:
    """Dense dark nuclei on purple."""
    cytoplasm = _periodic(rng.standard_normal((TEXTURE_PX, TEXTURE_PX)), (9, 9))
    cytoplasm /= np.abs(cytoplasm).max()
    pixels = np.array((196, 146, 200)) + cytoplasm[..., None] * (22, 22, 16)
    return _stain(_with_nuclei(rng, pixels, nuclei=600, radius=4.5), rng, 5)


def _with_nuclei(
    rng: np.random.Generator, pixels: npt.NDArray[np.float64], *, nuclei: int, radius: float
) -> npt.NDArray[np.float64]:
    points = np.zeros((TEXTURE_PX, TEXTURE_PX))
    places = rng.integers(0, TEXTURE_PX, (nuclei, 2))
    points[places[:, 0], places[:, 1]] = 1
    peak = 1 / (2 * np.pi * radius**2)
    density = np.clip(_periodic(points, (radius, radius)) / peak * 1.6, 0, 1)[..., None]
    return pixels * (1 - density) + np.array((92, 58, 140)) * density


def _periodic(
    image: npt.NDArray[np.float64], sigmas: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Gaussian blur that wraps around, so that the texture can be laid side by side."""
    down, across = (np.fft.fftfreq(size) for size in image.shape)
    # Transfer function of a Gaussian: exp(-2 (pi sigma f)^2) along each axis.
    damping = np.exp(
        -2 * np.pi**2 * ((sigmas[0] * down[:, None]) ** 2 + (sigmas[1] * across[None, :]) ** 2)
    )
    return np.fft.ifft2(np.fft.fft2(image) * damping).real


def _stain(pixels: npt.NDArray[np.float64], rng: np.random.Generator, grain: float) -> Pixels:
    grained = pixels + rng.normal(0, grain, pixels.shape[:2])[..., None]
    whole: Pixels = np.clip(np.rint(grained), 0, 255).astype(np.uint8)
    return whole
