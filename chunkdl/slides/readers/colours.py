"""The colour profile of a slide applied: RGB of the scanner becomes sRGB, by Little CMS."""

from __future__ import annotations

import dataclasses
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from chunkdl.errors import SlideError
from chunkdl.slides.slide import Pixels, Slide, SlideInfo
from chunkdl.slides.wrapped import WrappedSlide

MOST_PROFILE_BYTES = 16 * 2**20
BLOCK_PX = 4 * 2**20
"""Pixels converted at once; bounds the memory beside the output."""


def in_srgb(slide: Slide) -> Slide:
    """The slide with its colours in sRGB; a slide without a profile counts as sRGB already.

    Raises:
        SlideError: the profile is damaged, or is not one of RGB; the slide is closed then.
    """
    profile = slide.icc_profile
    if profile is None:
        return slide
    try:
        return _Converted(slide, _transform(profile))
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        slide.close()
        raise SlideError(
            f"its colour profile cannot be used ({error}): leave out icc='srgb'",
            slide=slide.info.path,
        ) from error


@lru_cache(maxsize=64)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    """From a profile to sRGB, with the intent that the profile names."""
    if len(profile) > MOST_PROFILE_BYTES:
        raise ValueError(f"it has {len(profile)} bytes")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = str(source.profile.xcolor_space).strip()
    if space != "RGB":
        raise ValueError(f"it is one of {space}, not of RGB")
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)


class _Converted(WrappedSlide):
    """A slide whose pixels go through a transform."""

    def __init__(self, slide: Slide, transform: ImageCms.ImageCmsTransform) -> None:
        super().__init__(slide)
        self._transform = transform
        self._info = dataclasses.replace(slide.info, icc="converted to sRGB")

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide, which say that its colours are converted."""
        return self._info

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """See `Slide.read_into`."""
        self._slide.read_into(out, level, x, y)
        rows = max(1, BLOCK_PX // max(1, out.shape[1]))
        for top in range(0, out.shape[0], rows):
            part = out[top : top + rows]
            image = Image.fromarray(np.ascontiguousarray(part))
            ImageCms.applyTransform(image, self._transform, inPlace=True)
            part[...] = np.asarray(image)
