"""COCO's JSON: images, categories, and objects with polygons or boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from chunkdl.annotations.curves import rectangle
from chunkdl.annotations.drawn import Drawn, Floats, Source, named
from chunkdl.annotations.json_text import BAD_JSON
from chunkdl.annotations.names import stem_of
from chunkdl.annotations.scales import scale_to_slide


class _Image(msgspec.Struct):
    id: int | str
    file_name: str = ""
    width: float | None = None
    height: float | None = None


class _Category(msgspec.Struct):
    id: int | str
    name: str


class _Object(msgspec.Struct):
    id: int | str | None = None
    image_id: int | str | None = None
    category_id: int | str | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    bbox: list[float | None] | None = None


class _File(msgspec.Struct):
    annotations: list[msgspec.Raw]
    images: list[_Image] = []
    categories: list[_Category] = []


_FILE = msgspec.json.Decoder(_File)
_OBJECT = msgspec.json.Decoder(_Object)
_POLYGONS = msgspec.json.Decoder(list[list[float | None]] | dict[str, Any] | None)


def read_coco(source: Source) -> Iterator[Drawn]:
    """The objects of the slide's image, in the order of the file.

    If the file has several images, that one is read whose file name without suffixes is the
    slide's. An image of another size than the slide is scaled to it. The polygons of an object
    together are its area; an object without polygons is its box.

    Raises:
        AnnotationError: it is not COCO, no image or several fit the slide, the image has another
            aspect ratio, or an object is a run-length mask or of an unknown category.
    """
    try:
        file = _FILE.decode(source.data)
    except BAD_JSON as error:
        raise source.error(f"it cannot be read as COCO: {error}") from error
    image = _image_of_slide(file.images, source)
    across, down = (1.0, 1.0) if image is None else _scale(image, source)
    names = {category.id: category.name for category in file.categories}
    for number, raw in enumerate(file.annotations):
        try:
            found = _OBJECT.decode(raw)
            shape = _POLYGONS.decode(found.segmentation)
        except BAD_JSON as error:
            raise source.error(f"it cannot be read as COCO: {error}", str(number)) from error
        label = "" if found.id is None else str(found.id)
        if image is not None and found.image_id is not None and found.image_id != image.id:
            continue
        drawn = Drawn(number, label)
        if found.category_id is not None:
            if found.category_id not in names:
                raise source.error(
                    f"its category {found.category_id!r:.40} is not in the file", drawn.named()
                )
            drawn.class_name = names[found.category_id]
        if isinstance(shape, dict):
            raise source.error(
                "it is a run-length mask (RLE), which is not read: convert it to polygons",
                drawn.named(),
            )
        for flat in shape or []:
            if len(flat) % 2:
                raise source.error("a polygon has an x without a y", drawn.named())
            ring = np.array(flat, np.float64).reshape(-1, 2)
            drawn.polygons.append([ring * (across, down)])
        if not drawn.polygons and found.bbox is not None:
            box = _box(found.bbox, source, number, label)
            drawn.polygons.append([box * (across, down)])
        if drawn.polygons:
            yield drawn
        else:
            source.notes.tell("it has neither polygon nor box; left out", drawn.named())


def _box(bbox: list[float | None], source: Source, number: int, label: str) -> Floats:
    if len(bbox) != 4:
        raise source.error(
            f"its box has {len(bbox)} numbers and not x, y, width, height", named(number, label)
        )
    x, y, width, height = np.array(bbox, np.float64).tolist()
    return rectangle((x + width / 2, y + height / 2), width, height)


def _image_of_slide(images: list[_Image], source: Source) -> _Image | None:
    """The image that the slide is; None: the file has none, and speaks of one slide."""
    if len(images) < 2:
        return images[0] if images else None
    fitting = [image for image in images if stem_of(image.file_name) == source.slide]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(image.file_name for image in (fitting or images)[:5])
    which = "several have" if fitting else "none has"
    raise source.error(
        f"it has {len(images)} images, and {which} the name of the slide {source.slide!r:.60} "
        f"({shown:.300})"
    )


def _scale(image: _Image, source: Source) -> tuple[float, float]:
    if image.width is None or image.height is None or source.size is None:
        return 1.0, 1.0
    if tuple(map(float, source.size)) == (image.width, image.height):
        return 1.0, 1.0
    return scale_to_slide(image.width, image.height, source, "the image in it")
