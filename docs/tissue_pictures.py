"""Draws the pictures of ``tissue.md`` and prints its table: ``python docs/tissue_pictures.py``.

Needs the slides of the folder that ``CHUNKDL_SLIDES`` names. Only pictures of slides whose licence
says that they may be passed on, and of made scenes, go into the page; with ``--all FOLDER`` there
is one of every slide, to look at.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from chunkdl import open_slide
from chunkdl.errors import SlideError
from chunkdl.slides.slide import PixelRule, Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Scale, find_tissue
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.thumbnail import read_thumbnail, thumbnail_plan

FOLDER = Path(__file__).parent / "pictures"
TISSUE = ("otsu", "hsv", "clam", "clam-tcga", "clam-bwh-biopsy", "wsistream-otsu")
ARTEFACTS = ("pen", "blur")
FREE = ("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif", "hamamatsu-test3-dapi-387.ndpi")
"""Slides that may be shown: CC0, free to distribute, and CC BY 4.0 (Manuel Stritt)."""
SIDE_PX = 190
GAP_PX = 6
LINE_PX = 16
OUTLINE, FOUND = (0, 150, 70), (255, 0, 160)


@dataclass(frozen=True)
class Scene:
    """A thumbnail.

    Attributes:
        name: of it.
        rgb: shape (h, w, 3), uint8.
        scale: of its pixels.
    """

    name: str
    rgb: Pixels
    scale: Scale


# ---- Real slides


def slides(folder: Path) -> Iterator[Scene]:
    """The thumbnails of all slides in a folder, and of its large regions."""
    for path in sorted(folder.iterdir()):
        if path.suffix != ".md" and path.name not in ("annotations", "regions"):
            try:
                yield slide_scene(path)
            except SlideError as error:
                print(f"left out: {error}")
    for path in sorted((folder / "regions").glob("*.jpg")):
        with Image.open(path) as image:
            small = image.resize((image.width // 16, image.height // 16), Image.Resampling.BOX)
        yield Scene(path.name, np.asarray(small), Scale(16, 16, 8, path.name))


def slide_scene(path: Path) -> Scene:
    """The thumbnail of a slide."""
    slide = open_slide(path, rule=PixelRule(channels=(0, 1, 2)))
    try:
        rgb, _ = read_thumbnail(slide, thumbnail_plan(slide.info, None))
        level0, mpp = slide.info.levels[0], slide.info.mpp
    finally:
        slide.close()
    across, down = level0.width / rgb.shape[1], level0.height / rgb.shape[0]
    microns = None if mpp is None else across * mpp[0]
    return Scene(path.name, rgb, Scale(across, down, microns, path.name))


# ---- Made scenes


def scenes() -> Iterator[Scene]:
    """Thumbnails of 320 x 320 pixels of 16 level-0 pixels, each with one difficulty."""
    rng = np.random.default_rng(13)
    inside = _blob(rng, 320)
    texture = _texture(rng, 320)
    glass = np.full((320, 320, 3), (241, 240, 242), np.float64) + rng.normal(0, 1.2, (320, 320, 3))
    tissue = np.array((205, 130, 175)) + texture[..., None] * np.array((28, 40, 26))

    def scene(name: str, rgb: np.ndarray) -> Scene:
        return Scene(name, np.clip(rgb, 0, 255).astype(np.uint8), Scale(16, 16, 8, name))

    plain = np.where(inside[..., None], tissue, glass)
    yield scene("H&E", plain)
    pale = np.array((232, 222, 230)) + texture[..., None] * np.array((4, 6, 4))
    yield scene("pale", np.where(inside[..., None], pale, glass))
    yield scene("fat", np.where((inside & ~_net(320))[..., None], glass, plain))
    yield scene("pen", _with_pen(plain))
    edge = plain.copy()
    edge[:, :14] = edge[:10] = (38, 35, 36)
    yield scene("dark edge", edge)
    blue = np.array((6, 8, 10)) + (inside * (1 + texture) * 45)[..., None] * np.array((0.1, 0.3, 2))
    yield scene("fluorescence", blue + rng.normal(0, 1, blue.shape))
    counter = np.array((196, 205, 222)) + texture[..., None] * 14
    brown = np.where((texture > 0.7)[..., None], np.array((140, 96, 62)), counter)
    yield scene("IHC", np.where(inside[..., None], brown, glass))
    soft = np.asarray(Image.fromarray(plain.astype(np.uint8)).filter(ImageFilter.GaussianBlur(6)))
    right = np.arange(320)[None, :, None] > 160
    yield scene("out of focus", np.where(right, soft + rng.normal(0, 1, soft.shape), plain))
    yield scene("glass only", glass)


def _blob(rng: np.random.Generator, side: int) -> Cells:
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = np.arctan2(y, x)
    radius = 0.33 + sum(
        rng.normal(0, 0.05 / n) * np.cos(n * angle + rng.uniform(0, 6)) for n in range(1, 7)
    )
    return np.asarray(np.hypot(x, y) < radius)


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    noise = Image.fromarray(rng.normal(128, 60, (side, side)).clip(0, 255).astype(np.uint8))
    fine = np.asarray(noise.filter(ImageFilter.GaussianBlur(1)), np.float64)
    coarse = np.asarray(noise.filter(ImageFilter.GaussianBlur(6)), np.float64)
    return (fine - fine.mean()) / fine.std() * 0.6 + (coarse - coarse.mean()) / coarse.std() * 0.5


def _net(side: int) -> Cells:
    """Thin walls around round cells."""
    y, x = np.mgrid[:side, :side] / 13
    return np.asarray(np.hypot(x % 1 - 0.5, (y + 0.5 * (x // 1 % 2)) % 1 - 0.5) > 0.44)


def _with_pen(rgb: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for number, colour in enumerate(((30, 60, 150), (40, 130, 110), (170, 40, 55), (25, 24, 28))):
        top = 40 + 62 * number
        draw.line([(30, top), (150, top + 40), (290, top)], fill=colour, width=9, joint="curve")
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)), np.float64)


# ---- Drawing


def sheet(shown: Sequence[Scene], columns: Sequence[str]) -> Image.Image:
    """A row of pictures for each scene: as it is, tissue with its border, artefacts in a colour."""
    font = ImageFont.load_default(12)
    step = SIDE_PX + GAP_PX
    width = (len(columns) + 1) * step + GAP_PX
    height = len(shown) * (step + LINE_PX) + GAP_PX
    whole = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(whole)
    for row, scene in enumerate(shown):
        top = GAP_PX + row * (step + LINE_PX)
        for column, name in enumerate(("", *columns)):
            left = GAP_PX + column * step
            found = find_tissue(detector_of(name), scene.rgb, scene.scale) if name else None
            title = scene.name if found is None else f"{name} {found.mean():.0%}"
            draw.text((left, top), title[:30], (30, 30, 30), font)
            picture = marked(scene.rgb, found, filled=name in ARTEFACTS)
            picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
            whole.paste(picture, (left, top + LINE_PX))
    return whole


def marked(rgb: Pixels, found: Cells | None, *, filled: bool) -> Image.Image:
    """A thumbnail with what was found, enlarged where it is small."""
    times = max(1, -(-2 * SIDE_PX // max(rgb.shape[:2])))
    large = rgb.repeat(times, axis=0).repeat(times, axis=1)
    if found is None:
        return Image.fromarray(large)
    cells = found.repeat(times, axis=0).repeat(times, axis=1)
    if filled:
        return Image.fromarray(np.where(cells[..., None], np.array(FOUND, np.uint8), large))
    border = np.zeros_like(cells)
    reach = max(1, max(cells.shape) // (SIDE_PX * 2)) + 1
    for shift in range(1, reach + 1):
        border[shift:] |= cells[shift:] != cells[:-shift]
        border[:, shift:] |= cells[:, shift:] != cells[:, :-shift]
    dim = np.where(cells[..., None], large, (large * 0.25 + 190).astype(np.uint8))
    return Image.fromarray(np.where(border[..., None], np.array(OUTLINE, np.uint8), dim))


def table(shown: Sequence[Scene]) -> str:
    """Shares of the thumbnails, in per cent, as Markdown."""
    columns = (*TISSUE, *ARTEFACTS)
    lines = [f"|Slide|{'|'.join(f'`{name}`' for name in columns)}|", "|-|" + "--:|" * len(columns)]
    for scene in shown:
        shares = [find_tissue(detector_of(name), scene.rgb, scene.scale).mean() for name in columns]
        lines.append(f"|`{scene.name}`|{'|'.join(f'{share:.0%}' for share in shares)}|")
    return "\n".join(lines)


def save(image: Image.Image, path: Path) -> None:
    image.save(path, quality=72)
    print(path.name, path.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="one picture for every slide")
    given = parser.parse_args()
    real = list(slides(Path(os.environ["CHUNKDL_SLIDES"])))
    made = list(scenes())
    by_name: Mapping[str, Scene] = {scene.name: scene for scene in real}
    columns = ("otsu", "hsv", "clam-bwh-biopsy", "wsistream-otsu", *ARTEFACTS)
    save(sheet(made, columns), FOLDER / "tissue-scenes.jpg")
    save(sheet([by_name[name] for name in FREE], columns), FOLDER / "tissue-slides.jpg")
    print(table(real))
    print(table(made))
    if given.all is not None:
        given.all.mkdir(parents=True, exist_ok=True)
        for scene in real:
            save(sheet([scene], (*TISSUE, *ARTEFACTS)), given.all / f"{scene.name}.png")


if __name__ == "__main__":
    main()
