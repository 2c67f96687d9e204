"""Pictures of what a pixel filter refuses, for people: a few files in a folder of the cache."""

from __future__ import annotations

import hashlib
import io
import os
import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

from chunkdl.slides.slide import Pixels
from chunkdl.system.kept_files import write_whole

MOST_PICTURES = 100
"""In one folder; the oldest make way."""
_OURS = re.compile(r"[A-Za-z0-9._-]{1,60}-[0-9a-f]{16}\.png")
"""Nothing else is ever removed."""


def keep_picture(folder: Path, slide: str, about: str, pixels: Pixels) -> Path:
    """Write the picture of a SmallChunk; what is refused again has the same file.

    Args:
        folder: made where it is not.
        slide: path of the slide.
        about: what else makes it another picture: filter and resolution.
        pixels: (h, w, 3) uint8.

    Raises:
        OSError: it cannot be written.
    """
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, "PNG")
    digest = hashlib.sha256(f"{slide}\n{about}".encode(errors="surrogateescape")).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", Path(slide).stem)[:60] or "slide"
    path = folder / f"{stem}-{digest[:16]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, path)
    write_whole(path, image.getvalue())
    return path


def _make_room(folder: Path, beside: Path) -> None:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and entry.name != beside.name:
                # Another loader may make room as well.
                with suppress(FileNotFoundError):
                    found.append((entry.stat().st_mtime_ns, entry.path))
    for _, path in sorted(found)[: max(0, len(found) - MOST_PICTURES + 1)]:
        with suppress(FileNotFoundError):
            os.unlink(path)
