"""How annotation files are read: what a file itself does not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from chunkdl.errors import ConfigError

Format = Literal["auto", "geojson", "asap", "slideflow", "coco", "histomics", "mask"]
FORMATS: tuple[str, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How a file of annotations is read.

    Attributes:
        format: of the file; "auto" looks at its content.
        cells: which outline of QuPath's cells is read; "nucleus" leaves out cells without one.
        hole_groups: names of ASAP groups, in any case of letters, whose polygons are holes: each
            is cut out of every other polygon that holds a point inside it.
        top_groups: an ASAP annotation has the class of the topmost group that holds its own group,
            instead of its own.
        origin: of the coordinates, in streams: "level0": the corner of level 0; "scanned": that of
            the scanned part, where a slide states one, as QuPath has it if it is not told
            `--no-crop`; "": level 0, with a warning where a slide states another corner.
        mask_classes: class names by value, of a raster mask. Value 0 is no class unless it is
            here; any other value that is not here is an error.

    Raises:
        ConfigError: one of them is not what it has to be.
    """

    format: Format = "auto"
    cells: Literal["cell", "nucleus"] = "cell"
    hole_groups: tuple[str, ...] = ("hole", "holes", "exclusion")
    top_groups: bool = False
    origin: Literal["", "level0", "scanned"] = ""
    mask_classes: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(
                f"there is no format of annotations {self.format!r}: choose one of "
                f"{', '.join(FORMATS)}"
            )
        if self.cells not in ("cell", "nucleus"):
            raise ConfigError(f"cells={self.cells!r} must be 'cell' or 'nucleus'")
        if self.origin not in ("", "level0", "scanned"):
            raise ConfigError(f"origin={self.origin!r:.80} must be 'level0' or 'scanned'")
        # One text would be taken for its letters.
        if not isinstance(self.hole_groups, tuple):
            raise ConfigError(f"hole_groups={self.hole_groups!r} must be a tuple of names")
        if not isinstance(self.top_groups, bool):
            raise ConfigError(f"top_groups={self.top_groups!r:.80} must be true or false")
        if not isinstance(self.mask_classes, Mapping):
            raise ConfigError(
                f"mask_classes={self.mask_classes!r:.80} must map values of the mask to names, "
                'such as {1: "tumor"}'
            )
        for value, name in self.mask_classes.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 0 <= value < 2**16 or not isinstance(name, str) or not name:
                raise ConfigError(
                    f"mask_classes has {value!r}: {name!r}; it must map values of the mask, whole "
                    'numbers from 0 to 65535, to names, such as {1: "tumor"}'
                )
        object.__setattr__(self, "mask_classes", dict(self.mask_classes))

    def key(self) -> str:
        """Text that differs where the result of reading may differ."""
        classes = sorted(self.mask_classes.items())
        how = (self.format, self.cells, self.hole_groups, self.top_groups, self.origin)
        return repr((*how, classes))
