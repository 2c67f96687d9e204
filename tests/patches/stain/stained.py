"""Images to normalise, and torchstain to compare with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

Pixels = npt.NDArray[np.uint8]

STAINS = np.array([[0.65, 0.07], [0.70, 0.99], [0.29, 0.11]])
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA"),
    ),
]


def stained(seed: int, side: int = 48, strength: float = 0.5, light: float = 250) -> Pixels:
    """Pixels with two stains of varying amounts, and a corner of glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(1.5, strength, (side, side, 2))
    amounts[: side // 4, : side // 4] = 0.01
    densities = amounts @ STAINS.T + rng.normal(0, 0.02, (side, side, 3))
    levels = light * np.exp(-np.maximum(densities, 0))
    return np.asarray(np.clip(np.rint(levels), 0, 255), np.uint8)


def batch() -> Pixels:
    """Images of several strengths, (6, 48, 48, 3)."""
    return np.stack([stained(seed, strength=0.2 + 0.1 * seed) for seed in range(6)])


def as_tensor(images: Pixels, device: str = "cpu") -> torch.Tensor:
    """(B, H, W, 3) as a batch of the loader has them: (B, 3, H, W) in channels_last order."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).to(device)


def as_array(images: torch.Tensor) -> npt.NDArray[Any]:
    """(B, 3, H, W) as (B, H, W, 3)."""
    found: npt.NDArray[Any] = images.permute(0, 2, 3, 1).cpu().numpy()
    return found


def levels_apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> int:
    """The largest difference of two uint8 images, in levels."""
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


def called(value: Any) -> str:
    """A short name of a test with a normaliser, or an operation."""
    if not hasattr(value, "name"):
        return str(value)
    inner = getattr(value, "normaliser", value)
    parts = [value.name, getattr(inner, "preset", ""), getattr(value, "axis", "")]
    flags = [flag for flag in ("fast", "mask") if getattr(inner, flag, False)]
    return "-".join(part for part in (*parts, *flags) if part)


def torchstain(module: str) -> Any:
    """A module of torchstain, or skips.

    Its wheel has a package ``tests`` beside it, which would hide this one. So the Makefile installs
    it into a folder of its own, which is on the path only here.
    """
    folder = str(Path(sys.prefix) / "torchstain")
    sys.path.append(folder)
    try:
        return pytest.importorskip(f"torchstain.{module}", reason="torchstain is not installed")
    finally:
        sys.path.remove(folder)
