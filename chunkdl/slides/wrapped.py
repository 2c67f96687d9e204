"""A slide behind another one: everything is the inner slide's but what a subclass changes."""

from __future__ import annotations

from chunkdl.slides.slide import Gaps, Pixels, Scanned, Slide, SlideInfo


class WrappedSlide:
    """A `Slide` that hands everything on.

    Args:
        slide: the inner slide; closed with this one.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide

    @property
    def info(self) -> SlideInfo:
        """The facts of the slide."""
        return self._slide.info

    @property
    def decoded_px(self) -> int:
        """Pixels decoded since opening."""
        return self._slide.decoded_px

    @property
    def gaps(self) -> Gaps:
        """What was mended since opening."""
        return self._slide.gaps

    @property
    def icc_profile(self) -> bytes | None:
        """The colour profile in the file."""
        return self._slide.icc_profile

    @property
    def state(self) -> str:
        """Sizes and times of change of the files."""
        return self._slide.state

    @property
    def nbytes(self) -> int:
        """Memory of the inner slide."""
        return self._slide.nbytes

    def scanned(self) -> Scanned | None:
        """Which parts of level 0 have pixels."""
        return self._slide.scanned()

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill `out` with the pixels of `level` from (x, y) on; see `Slide.read_into`."""
        self._slide.read_into(out, level, x, y)

    def close(self) -> None:
        """Give the file back; closing twice is not an error."""
        self._slide.close()
