"""Pictures of what would be sampled: the slide, its tissue, and the first windows and positions.

Windows and positions are drawn from the plan itself, so the picture of a slide shows the first
BigChunks of a stream over this slide alone, with the same settings and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.sources import file_of_each_slide, files_below
from chunkdl.commands.labelled_patches import labelled_patches
from chunkdl.commands.refused_places import ELSEWHERE, NO_TISSUE, Audit, audit_of, codes_of
from chunkdl.dataset.patients import Dataset, Patient
from chunkdl.engine.config import EngineConfig, StreamConfig
from chunkdl.engine.settings.arguments import Arguments, Profile
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.load_bigchunk import survey_window
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.engine.work.window_plans import Region, window_plan
from chunkdl.errors import NothingPassesError, NoTissueError
from chunkdl.sampling import reuse
from chunkdl.sampling.strata import StratumSchedule
from chunkdl.slides.slide import Pixels, Slide
from chunkdl.slides.tissue.outline import outlined
from chunkdl.slides.tissue.thumbnail import picture_plan, read_thumbnail
from chunkdl.system.printing import printable
from chunkdl.transport.protocol.engine_messages import LoadBigChunk, SurveyWindow

LONGEST_PX = 1400
"""Longer side of the thumbnail; slides that are smaller than that are shown as they are."""
NARROWEST_PX = 1000
"""Width of a picture, so that the caption has room."""
MARGIN_PX = 16
TEXT_PX = 20
OUTLINE = (0, 150, 70)
COLOURS = (
    *((0, 80, 255), (255, 120, 0), (0, 175, 215), (215, 0, 0)),
    *((240, 200, 0), (150, 0, 255), (120, 220, 0), (130, 70, 20)),
)
"""Of the windows, in turn; none is a colour of H&E."""
CLASS_COLOURS = ((230, 0, 230), (0, 0, 0), (0, 220, 220), (120, 0, 0), (90, 90, 0), (0, 0, 140))
"""Of the outlines of annotated classes, in the order of their names."""
REFUSED_COLOURS = {NO_TISSUE: (150, 150, 150), ELSEWHERE: (255, 150, 0)}
"""Of the dots where nothing is drawn."""
FOOTPRINT_FILL, FOOTPRINT_EDGE = 26, 150
"""Opacities, of 255; where many footprints lie over each other, the colour is denser."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at; the names and meanings are those of `LightDL`.

    Attributes:
        windows: how many windows are drawn.
        positions: positions per window; None: as many as a stream with a reuse of 1 takes.
    """

    smallchunk_size: int = 224
    bigchunk_size: int = 2048
    mpp: float | None = None
    level: int | None = None
    downsample: float | None = None
    magnification: str | None = None
    tissue: str | Mapping[str, Any] = "otsu"
    tissue_threshold: float = 0.5
    pixel_filter: str | None = None
    annotations: str | None = None
    roi: str = "ignore"
    regions: Mapping[str, float] | None = None
    channels: tuple[int, ...] | None = None
    window: tuple[float, float] | None = None
    icc: Profile | None = None
    seed: int = 0
    windows: int = 8
    positions: int | None = None


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was found out about a slide, beside its picture.

    Attributes:
        problem: why nothing can be sampled from the slide; None: all is well.
        audit: how many places each rule takes away.
    """

    problem: NoTissueError | None
    audit: Audit


def inspect_slide(patient: Patient, look: Look, picture: Path) -> Inspected:
    """Draw one picture of the first slide of a patient.

    Args:
        patient: with a slide, as `Dataset.from_slides` makes them.
        look: what to draw.
        picture: the PNG file to write; its folder is made where it is not.

    Returns:
        What was found; the slide is drawn also where nothing can be sampled from it.

    Raises:
        AnnotationError: the annotations of the slide cannot be read.
        ConfigError: a setting of `look` is wrong for every slide.
        SlideError: the slide cannot be opened or read, or cannot give the resolution.
    """
    look, missing = _with_classes_of(patient, look)
    service = configure(Dataset("inspect", [patient]), _arguments(look))
    config = service.stream
    problem: NoTissueError | None = None
    samples: Sequence[Region] = ()
    with OpenSlides(service.slides, config, service.run.mask_cache) as slides:
        planned = slides.get(0).at(config.resolution.examples[0])
        try:
            window_plan(config).find_places(slides.get(0))
            facts, samples = _sampled(planned, service, look)
            facts += _refused(slides)
        except NothingPassesError as error:
            problem = error
            facts = f"the pixel filter {look.pixel_filter} refuses all that was looked at"
        except NoTissueError as error:
            problem = error
            facts = f"no position with at least {config.tissue_threshold:.0%} tissue"
        image = _drawn(planned, config, samples)
        patches = labelled_patches(planned, samples, colour_of_class, image.width)
        audit = audit_of(planned, config)
        caption = (*_caption(patient.name, planned, config, facts, audit), *missing)
    if patches is not None:
        image = _below(image, patches)
    picture.parent.mkdir(parents=True, exist_ok=True)
    _captioned(image, caption).save(picture)
    return Inspected(problem, audit)


def _with_classes_of(patient: Patient, look: Look) -> tuple[Look, tuple[str, ...]]:
    """What to look at on one slide of many, which need not have all classes, or any.

    Returns:
        What the slide has of it; and for the caption, what it lacks.
    """
    if look.annotations is None:
        return look, ()
    paths = [record.path for record in patient.slides]
    files = file_of_each_slide(paths, files_below(look.annotations), ReadingOptions())
    if not any(files):
        nothing = replace(look, annotations=None, roi="ignore", regions=None)
        return nothing, ("no file of annotations has the name of this slide",)
    if not look.regions:
        return look, ()
    plain = replace(look, roi="ignore", regions=None)
    use = configure(Dataset("inspect", [patient]), _arguments(plain)).stream.annotations
    there = () if use is None else use.names
    here = {name: weight for name, weight in look.regions.items() if name in there}
    if here == look.regions:
        return look, ()
    lacking = ", ".join(name for name in look.regions if name not in here)
    return replace(look, regions=here or None), (f"this slide has no {lacking}",)


def _arguments(look: Look) -> Arguments:
    """The settings of a stream that is planned and never run, so its memory is the least."""
    return Arguments(
        batch_size=1,
        smallchunk_size=look.smallchunk_size,
        bigchunk_size=look.bigchunk_size,
        level=look.level,
        mpp=look.mpp,
        downsample=look.downsample,
        magnification=look.magnification,
        num_bigchunks=1,
        tissue=look.tissue,
        tissue_threshold=look.tissue_threshold,
        pixel_filter=look.pixel_filter,
        annotations=look.annotations,
        roi=look.roi,
        regions=look.regions,
        channels=look.channels,
        window=look.window,
        icc=look.icc,
        seed=look.seed,
        on_error="raise",
        num_loaders=1,
        num_collectors=1,
        memory_limit="64GiB",
        batch_slots=2,
    )


# ---- What the plan says


def _sampled(
    planned: PlannedSlide, service: EngineConfig, look: Look
) -> tuple[str, tuple[Region, ...]]:
    """The facts about the positions, and the first BigChunks.

    Raises:
        NoTissueError: there are no positions.
    """
    config = service.stream
    per_window = calls_for_reuse(planned, service) if look.positions is None else look.positions
    samples = tuple(
        sample(_of_class(planned, service, ordinal), config, ordinal, per_window)
        for ordinal in range(look.windows)
    )
    delivered = per_window * look.windows * config.smallchunk_px**2
    reuse = delivered / sum(one.target_px for one in samples)
    return f"{len(samples)} windows of {per_window} positions: reuse {reuse:.2f}", samples


def _of_class(planned: PlannedSlide, service: EngineConfig, ordinal: int) -> PlannedSlide:
    """The slide, drawn from the class that comes with that BigChunk where classes have weights."""
    if not service.groups:
        return planned
    region = StratumSchedule(service.stream.seed, service.groups).stratum(ordinal).region
    return window_plan(service.stream).at(planned.opened, ordinal, 0, region)


def _refused(slides: OpenSlides) -> str:
    """What a pixel filter refused of the anchors of the first BigChunks; empty without one."""
    return "".join(
        f"  ·  the pixel filter refused {refused} of {looked} windows"
        for _, looked, refused in slides.looks.news()
    )


def calls_for_reuse(planned: PlannedSlide, service: EngineConfig) -> int:
    """SmallChunks per BigChunk that a stream over this slide settles on for its `reuse`."""
    config = service.stream
    areas = [
        survey_window(_of_class(planned, service, ordinal), SurveyWindow(ordinal, 0, 0), config)
        for ordinal in range(reuse.SURVEYED_WINDOWS)
    ]
    return reuse.calls_for_reuse(config, areas)


def sample(planned: PlannedSlide, config: StreamConfig, ordinal: int, count: int) -> Region:
    """BigChunk `ordinal` of a stream over this slide, with `count` positions."""
    ticket = LoadBigChunk(ordinal, 0, 0, window=-1, calls=count, slot=0, generation=0)
    return window_plan(config).of(planned, ticket)


# ---- What is drawn


def _drawn(planned: PlannedSlide, config: StreamConfig, samples: Sequence[Region]) -> Image.Image:
    pixels = outlined(_thumbnail(planned.slide), planned.mask.cells, OUTLINE)
    regions = planned.opened.regions
    if regions is not None and config.annotations is not None:
        for index in filter(regions.has, range(len(config.annotations.names))):
            pixels = outlined(pixels, regions.raster == index + 1, colour_of_class(index))
    image = _with_refused(Image.fromarray(pixels), planned, config)
    scale = image.width / planned.slide.info.levels[0].width * planned.grid.downsample
    image = _with_footprints(image, scale, samples, config.smallchunk_px)
    _draw_windows(image, scale, samples)
    return image


def _thumbnail(slide: Slide) -> Pixels:
    """The whole slide, at most `LONGEST_PX` on a side; a tile that cannot be read is no reason
    not to look at the rest."""
    pixels, _ = read_thumbnail(slide, picture_plan(slide.info, LONGEST_PX))
    return pixels


def colour_of_class(index: int) -> tuple[int, int, int]:
    """Of the outline of an annotated class."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def _with_refused(image: Image.Image, planned: PlannedSlide, config: StreamConfig) -> Image.Image:
    """A dot where the SmallChunk around it is refused, in a colour for each reason."""
    codes, step = codes_of(planned, config)
    scale = image.width / planned.slide.info.levels[0].width * planned.grid.downsample
    draw = ImageDraw.Draw(image)
    for code, colour in REFUSED_COLOURS.items():
        for row, column in np.argwhere(codes == code).tolist():
            x, y = (column + 0.5) * step * scale, (row + 0.5) * step * scale
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=colour)
    return image


def _with_footprints(
    image: Image.Image, scale: float, samples: Sequence[Region], side_px: int
) -> Image.Image:
    """Each SmallChunk as a thin layer of its window's colour."""
    image = image.convert("RGBA")
    for number, one in enumerate(samples):
        colour = COLOURS[number % len(COLOURS)]
        for x, y in zip(one.draws.x.tolist(), one.draws.y.tolist(), strict=True):
            box = [x * scale, y * scale, (x + side_px) * scale, (y + side_px) * scale]
            left, top, right, bottom = (round(value) for value in box)
            size = (max(1, right - left), max(1, bottom - top))
            layer = Image.new("RGBA", size, (*colour, FOOTPRINT_FILL))
            edge = (0, 0, size[0] - 1, size[1] - 1)
            ImageDraw.Draw(layer).rectangle(edge, outline=(*colour, FOOTPRINT_EDGE))
            image.alpha_composite(layer, (left, top))
    return image.convert("RGB")


def _draw_windows(image: Image.Image, scale: float, samples: Sequence[Region]) -> None:
    """The rectangles of the windows with their numbers; overhang ends at the slide's edge."""
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(TEXT_PX)
    corners = []
    for number, one in enumerate(samples):
        colour = COLOURS[number % len(COLOURS)]
        x, y, side = one.window.x * scale, one.window.y * scale, one.window.side_px * scale
        left, top = max(1, round(x)), max(1, round(y))
        right = min(image.width - 2, round(x + side))
        bottom = min(image.height - 2, round(y + side))
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="white", width=4)
        draw.rectangle((left, top, right, bottom), outline=colour, width=2)
        corners.append((left, top))
    for number, (left, top) in enumerate(corners):
        # Windows with the same corner have their numbers side by side.
        at = (left + 7 + TEXT_PX * corners[:number].count((left, top)), top + 5)
        colour = COLOURS[number % len(COLOURS)]
        draw.text(at, str(number), colour, font, stroke_width=2, stroke_fill="white")


def _caption(
    name: str, planned: PlannedSlide, config: StreamConfig, facts: str, audit: Audit
) -> tuple[str, ...]:
    share = planned.mask.cells.mean()
    info, grid, lattice = planned.slide.info, planned.grid, planned.lattice
    first = info.levels[0]
    levels = ", ".join(f"{level.downsample:.4g}" for level in info.levels)
    mpp = "mpp unknown" if info.mpp is None else f"{info.mpp[0]:.4g} mpp"
    target = "" if grid.mpp is None else f" = {grid.mpp:.4g} mpp"
    tiles = f"{first.tile_width}x{first.tile_height}"
    icc = f"  ·  colour profile {info.icc}" if info.icc else ""
    stride = f"{lattice.across.stride_px}x{lattice.down.stride_px}"
    tissue = "whole slide" if config.tissue is None else config.tissue.name
    return (
        f"{printable(name)}  ·  reader {info.reader}  ·  "
        f"{first.width}x{first.height} px  ·  {mpp}  ·  tiles {tiles}{icc}",
        f"levels {levels}  ·  read: level {grid.level}, downsample {grid.downsample:.4g}{target}",
        f"BigChunk {config.bigchunk_px} px on a lattice of {stride} px  ·  "
        f"SmallChunk {config.smallchunk_px} px",
        f"tissue ({tissue}) {share:.1%} of the slide  ·  {facts}",
        f"{audit} (grey dots: too little tissue; orange: outside of roi or regions)",
        *_classes(config),
    )


def _classes(config: StreamConfig) -> tuple[str, ...]:
    """The classes by the colours of their outlines; nothing without annotations."""
    use = config.annotations
    if use is None:
        return ()
    colours = "magenta", "black", "cyan", "dark red", "olive", "dark blue"
    named = (f"{name} {colours[i % len(colours)]}" for i, name in enumerate(use.names))
    return (f"annotated: {', '.join(named)}",)


def _below(image: Image.Image, other: Image.Image) -> Image.Image:
    whole = Image.new("RGB", (image.width, image.height + MARGIN_PX + other.height), "white")
    whole.paste(image, (0, 0))
    whole.paste(other, (0, image.height + MARGIN_PX))
    return whole


def _captioned(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(TEXT_PX)
    step = round(TEXT_PX * 1.5)
    width = max(image.width, NARROWEST_PX, *(round(font.getlength(line)) for line in lines))
    whole = Image.new(
        "RGB",
        (width + 2 * MARGIN_PX, image.height + step * len(lines) + 3 * MARGIN_PX),
        "white",
    )
    whole.paste(image, (MARGIN_PX, MARGIN_PX))
    draw = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        at = (MARGIN_PX, image.height + 2 * MARGIN_PX + number * step)
        draw.text(at, line, fill=(30, 30, 30), font=font)
    return whole
