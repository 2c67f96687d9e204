"""Tensors of images as planes, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from chunkdl.patches.arithmetic.maths import Maths
from chunkdl.patches.arithmetic.torch_maths import TorchMaths

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def is_known(images: torch.Tensor) -> bool:
    """Whether it is of a dtype that images have."""
    return images.dtype == torch.uint8 or images.dtype in _FLOATS


def in_range(images: torch.Tensor) -> bool:
    """Whether all floats lie from 0 to 1; waits for the device."""
    return bool(((images >= 0) & (images <= 1)).all())


def maths_of(images: torch.Tensor) -> Maths:
    """What computes on their device."""
    return TorchMaths(images.device)


def planes_of(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) as float32 from 0 to 1, on own memory."""
    if images.dtype == torch.uint8:
        return images.to(torch.float32) * (1 / 255)
    return images.detach().to(torch.float32, copy=True)


def back(
    planes: torch.Tensor, images: torch.Tensor, dtype: torch.dtype, *, alone: bool
) -> torch.Tensor:
    """Planes in a dtype, and in the order of memory of the images."""
    made = planes.to(dtype)
    if alone:
        return made[0].contiguous()
    by_pixels = images.is_contiguous(memory_format=torch.channels_last)
    if by_pixels and not images.is_contiguous():
        return made.contiguous(memory_format=torch.channels_last)
    return made.contiguous()


@contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Without gradients and without autocast."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield
