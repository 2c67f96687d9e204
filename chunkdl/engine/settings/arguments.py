"""The settings of a stream, each declared once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.shapes import Objects
from chunkdl.annotations.sources import OwnAnnotations
from chunkdl.annotations.use import (
    Label,
    Regions,
    Roi,
    checked_names,
    checked_regions,
    checked_roi,
)
from chunkdl.engine.config import Edge, GridOrder, OnError, Order
from chunkdl.engine.settings.checks import (
    checked_annotations,
    checked_channels,
    checked_colour,
    checked_cores,
    checked_cycles,
    checked_detector,
    checked_downsample,
    checked_filter,
    checked_level,
    checked_magnification,
    checked_mpp,
    checked_path,
    checked_reading,
    checked_size,
    checked_window,
)
from chunkdl.engine.settings.setting import Setting
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling.balance import Balance, checked_balance
from chunkdl.sampling.policies.policy import Policy
from chunkdl.sampling.resolutions import Values
from chunkdl.sampling.seeding import MAX_SEED
from chunkdl.slides.resolution import MOST_DEVIATION, LevelPolicy
from chunkdl.slides.tissue.detectors.detector import TissueDetector

MOST_ROWS = 4096
"""Of a batch: the rows of more fit into no message. What a consumer of a service gets is put
together of several, and bounded in `chunkdl.transport.protocol.service_checks`."""
MOST_SLOTS = 1024
"""Batches in shared memory."""

Reader = Literal["auto", "tiff", "dicom", "openslide"]
Profile = Literal["srgb"]
Where = Literal["collectors", "consumer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What `LightDL`, or a daemon's file, says of a stream and of what runs it.

    A field with a `Setting` is a setting; the others are code of the user, which `users_code`
    checks.
    """

    batch_size: Annotated[
        int,
        Setting(
            meaning="SmallChunks per batch",
            table="stream",
            identity="batches",
            unit="rows",
            least=1,
            most=MOST_ROWS,
        ),
    ] = 64
    smallchunk_size: Annotated[
        int,
        Setting(
            meaning="side length of a SmallChunk",
            table="stream",
            identity="rows",
            unit="target pixels",
            least=1,
            most=16384,
        ),
    ] = 224
    bigchunk_size: Annotated[
        int,
        Setting(
            meaning="side length of a BigChunk",
            table="stream",
            identity="rows",
            unit="target pixels",
            least=1,
            most=32768,
        ),
    ] = 2048
    mpp: Annotated[
        float | Mapping[Any, Any] | Values | None,
        Setting(
            meaning=(
                "wished resolution, several with weights, or a range; give at most one of mpp, "
                "level and downsample"
            ),
            table="stream",
            identity="rows",
            unit="microns/pixel",
            check=checked_mpp,
            example=0.5,
            file_type=float | dict[str, Any],
        ),
    ] = None
    level: Annotated[
        int | None,
        Setting(
            meaning="wished level of the pyramid; 0 if no resolution is given",
            table="stream",
            identity="rows",
            check=checked_level,
            example=0,
        ),
    ] = None
    downsample: Annotated[
        float | Mapping[Any, Any] | Values | None,
        Setting(
            meaning="wished resolution, relative to level 0; several with weights, or a range",
            table="stream",
            identity="rows",
            unit="level-0 pixels/pixel",
            check=checked_downsample,
            example=2.0,
            file_type=float | dict[str, Any],
        ),
    ] = None
    magnification: Annotated[
        float | str | Mapping[Any, Any] | None,
        Setting(
            meaning=(
                "wished resolution as the power of an objective, 10 microns/pixel divided by it; "
                "slides that state only their objective have that too"
            ),
            table="stream",
            identity="rows",
            check=checked_magnification,
            example="20x",
            file_type=float | str | dict[str, Any],
        ),
    ] = None
    resolution_policy: Annotated[
        LevelPolicy | None,
        Setting(
            meaning="what to do if no level matches: error, nearest, floor, ceil or resample",
            table="stream",
            identity="rows",
            example="resample",
        ),
    ] = None
    max_relative_deviation: Annotated[
        float,
        Setting(
            meaning=(
                "how far the nearest level, or a level 0 that is too coarse, may be from the "
                "wished resolution"
            ),
            table="stream",
            identity="rows",
            unit="share of it",
            least=0,
            most=100,
        ),
    ] = MOST_DEVIATION
    num_bigchunks: Annotated[
        int,
        Setting(
            meaning=(
                "BigChunks that are open at a time; more of them mix batches better and need "
                "more memory"
            ),
            table="stream",
            identity="rows",
            unit="BigChunks",
            least=1,
            most=4096,
        ),
    ] = 32
    reuse: Annotated[
        float,
        Setting(
            meaning="how often a pixel of the regions read is delivered, on average",
            table="stream",
            identity="rows",
            above=0,
            most=1000,
        ),
    ] = 1.0
    smallchunks_per_bigchunk: Annotated[
        int | None,
        Setting(
            meaning="exact number of SmallChunks per BigChunk, instead of reuse",
            table="stream",
            identity="rows",
            unit="SmallChunks",
            least=1,
            most=10**9,
            example=80,
        ),
    ] = None
    tissue: Annotated[
        str | Mapping[str, Any] | TissueDetector | None,
        Setting(
            meaning=(
                "tissue detector: otsu, hsv, clam and others, optionally with parameters, or none "
                "to sample the whole slide"
            ),
            table="stream",
            identity="rows",
            check=checked_detector,
            file_type=str | dict[str, Any],
        ),
    ] = "otsu"
    tissue_threshold: Annotated[
        float,
        Setting(
            meaning="minimum share of tissue in a SmallChunk",
            table="stream",
            identity="rows",
            unit="share, 0 to 1",
            least=0,
            most=1,
        ),
    ] = 0.5
    pixel_filter: Annotated[
        str | Mapping[str, Any] | PixelFilter | None,
        Setting(
            meaning=(
                "which SmallChunks pass by their pixels: midnight, hsv, grey, white, contrast, "
                "blur, pen, all, any or not, with parameters"
            ),
            table="stream",
            identity="rows",
            check=checked_filter,
            example="midnight",
            file_type=str | dict[str, Any],
        ),
    ] = None
    annotations: Annotated[
        str | os.PathLike[str] | OwnAnnotations | None,
        Setting(
            meaning=(
                "folder with a file of annotations for each slide, by its name; by default the "
                "column annotations of the manifest"
            ),
            table="stream",
            unit="folder",
            check=checked_annotations,
            example="annotations",
            file_type=str,
        ),
    ] = None
    annotation_reading: Annotated[
        Mapping[str, Any] | ReadingOptions | None,
        Setting(
            meaning=(
                "how files of annotations are read: format, cells, hole_groups, top_groups, "
                "origin, mask_classes"
            ),
            table="stream",
            check=checked_reading,
            example={"format": "geojson"},
            file_type=dict[str, Any],
        ),
    ] = None
    region_names: Annotated[
        Mapping[str, str] | Sequence[str] | None,
        Setting(
            meaning=(
                "other names for annotated classes, an empty one leaves a class out; or a list of "
                "the classes that count, in the order of their numbers"
            ),
            table="stream",
            identity="rows",
            check=checked_names,
            example={"Tumor": "tumor"},
            file_type=dict[str, str] | tuple[str, ...],
        ),
    ] = None
    balance: Annotated[
        str | Sequence[str] | Mapping[str, Any] | Balance | None,
        Setting(
            meaning=(
                "how often slides come: patient (patients alike, the default), slide, a list of "
                "labels and then patient or slide, or a table of category, alike, weights, bins "
                "and slide_weights"
            ),
            table="stream",
            check=checked_balance,
            identity="rows",
            example=["grade", "patient"],
            file_type=str | list[str] | dict[str, Any],
        ),
    ] = None
    roi: Annotated[
        str | Mapping[str, Any] | Roi,
        Setting(
            meaning=(
                "where SmallChunks are drawn from: inside of what is annotated, outside, auto "
                "(inside on slides that have any) or ignore; with classes and share"
            ),
            table="stream",
            identity="rows",
            check=checked_roi,
            file_type=str | dict[str, Any],
        ),
    ] = "ignore"
    regions: Annotated[
        Mapping[str, Any] | Regions | None,
        Setting(
            meaning=(
                "weights of the annotated classes that SmallChunks are drawn from; or a table of "
                "weights, share, within (stream or slide), draw (places, annotations or "
                "centroids), area_power, jitter_px and objects"
            ),
            table="stream",
            identity="rows",
            check=checked_regions,
            example={"tumor": 1, "stroma": 1},
            file_type=dict[str, Any],
        ),
    ] = None
    label_mask: Annotated[
        bool,
        Setting(
            meaning="each row has the annotated class of each of its pixels",
            table="stream",
            identity="rows",
        ),
    ] = False
    region_label: Annotated[
        Label,
        Setting(
            meaning=(
                "which class the column region has: that at the centre, or the one with the "
                "largest share of the pixels"
            ),
            table="stream",
            identity="rows",
            file_type=str,
        ),
    ] = "centre"
    region_shares: Annotated[
        bool,
        Setting(
            meaning="each row has the share of its pixels that each annotated class has",
            table="stream",
            identity="rows",
        ),
    ] = False
    cells: Annotated[
        Objects | None,
        Setting(
            meaning=(
                "each row has the objects whose centroid lies in it, such as cells: annotations, "
                "detections (of a program) or all"
            ),
            table="stream",
            identity="rows",
            example="detections",
            file_type=str,
        ),
    ] = None
    reader: Annotated[
        Reader,
        Setting(
            meaning="reader of the slides: auto, tiff, dicom or openslide",
            table="stream",
            identity="rows",
            file_type=str,
        ),
    ] = "auto"
    channels: Annotated[
        Sequence[int] | None,
        Setting(
            meaning="samples of a pixel that become red, green and blue; or one sample, for grey",
            table="stream",
            identity="rows",
            check=checked_channels,
            example=[0, 1, 2],
            file_type=tuple[int, ...],
        ),
    ] = None
    window: Annotated[
        Sequence[float] | None,
        Setting(
            meaning="for 16-bit samples: the values that become 0 and 255",
            table="stream",
            identity="rows",
            check=checked_window,
            example=[0, 4095],
            file_type=tuple[float, float],
        ),
    ] = None
    icc: Annotated[
        Profile | None,
        Setting(
            meaning="srgb converts colours with the profile in the file",
            table="stream",
            identity="rows",
            example="srgb",
            file_type=str,
        ),
    ] = None
    grid: Annotated[
        bool,
        Setting(
            meaning="one finite pass over a grid, instead of an endless stream",
            table="stream",
            identity="rows",
        ),
    ] = False
    replacement: Annotated[
        bool,
        Setting(
            meaning=(
                "false: the positions of a grid in mixed order, each once in every cycle of its "
                "slide"
            ),
            table="stream",
            identity="rows",
        ),
    ] = True
    cycles: Annotated[
        int | str | None,
        Setting(
            meaning=(
                "without replacement: how often each position comes in a pass, or endless (in "
                "Python also None)"
            ),
            table="stream",
            identity="rows",
            unit="cycles",
            check=checked_cycles,
            file_type=int | str,
        ),
    ] = 1
    stride: Annotated[
        int | None,
        Setting(
            meaning=(
                "distance of neighbouring grid positions; by default smallchunk_size; less makes "
                "them overlap, more leaves gaps"
            ),
            table="stream",
            identity="rows",
            unit="target pixels",
            least=1,
            most=10**6,
            example=112,
        ),
    ] = None
    edge: Annotated[
        Edge,
        Setting(
            meaning=(
                "grid positions at the right and lower edge of a slide: inside, or (pad) also one "
                "that overhangs, so that nothing is left out"
            ),
            table="stream",
            identity="rows",
            file_type=str,
        ),
    ] = "inside"
    edge_fill: Annotated[
        Sequence[int],
        Setting(
            meaning="where edge is pad, the colour of what lies outside the slide",
            table="stream",
            identity="rows",
            unit="red, green, blue: 0 to 255",
            check=checked_colour,
            file_type=tuple[int, int, int],
        ),
    ] = (255, 255, 255)
    grid_order: Annotated[
        GridOrder,
        Setting(
            meaning=(
                "order of the slides in a grid pass: mixed by the seed, or that of the dataset; "
                "a slide is read window by window in reading order"
            ),
            table="stream",
            identity="rows",
            file_type=str,
        ),
    ] = "mixed"
    drop_last: Annotated[
        bool,
        Setting(
            meaning="leave out the short last batch of a grid pass",
            table="stream",
            identity="batches",
        ),
    ] = False
    shuffle: Annotated[
        bool,
        Setting(meaning="each grid pass has a different order", table="stream", identity="rows"),
    ] = False
    seed: Annotated[
        int,
        Setting(
            meaning="seed of all random choices",
            table="stream",
            identity="rows",
            unit="0 to 2**64 - 1",
            least=0,
            most=MAX_SEED,
        ),
    ] = 0
    order: Annotated[
        Order,
        Setting(
            meaning=(
                "strict; or relaxed: batches come as soon as they are ready, within a bounded "
                "window"
            )
        ),
    ] = "strict"
    num_loaders: Annotated[
        int | None,
        Setting(
            meaning="reading processes; by default one per core",
            table="run",
            unit="processes",
            least=1,
            most=1024,
            example=4,
        ),
    ] = None
    num_collectors: Annotated[
        int | None,
        Setting(
            meaning="cropping processes; by default in proportion to the cores",
            table="run",
            unit="processes",
            least=1,
            most=1024,
            example=1,
        ),
    ] = None
    memory_limit: Annotated[
        int | str,
        Setting(
            meaning="maximum shared memory of one stream, or of one group of a service",
            table="run",
            unit='bytes, or a text like "4GiB"',
            check=checked_size,
        ),
    ] = "4GiB"
    batch_slots: Annotated[
        int,
        Setting(
            meaning="batches in shared memory; in a service, 0 means as many as the consumers need",
            table="run",
            unit="batches",
            least=2,
            most=MOST_SLOTS,
            file_default=0,
        ),
    ] = 8
    mask_cache: Annotated[
        str | os.PathLike[str] | None,
        Setting(
            meaning=(
                "folder for tissue masks and facts from slide headers; by default your cache folder"
            ),
            table="run",
            unit="folder",
            check=checked_path,
            example="masks",
            file_type=str,
        ),
    ] = None
    cpu_affinity: Annotated[
        Sequence[int] | None,
        Setting(
            meaning="cores that the processes may use; empty: all",
            table="run",
            unit="core numbers",
            check=checked_cores,
            file_type=tuple[int, ...],
            file_default=(),
        ),
    ] = None
    stall_timeout: Annotated[
        float,
        Setting(
            meaning="a worker that reports nothing for this time is replaced",
            table="run",
            unit="seconds",
            above=0,
            key="stall_timeout_s",
        ),
    ] = 120.0
    hook_timeout: Annotated[
        float | None,
        Setting(
            meaning="maximum time of one call of the user's code; by default unlimited",
            table="run",
            unit="seconds",
            above=0,
            example=60.0,
            key="hook_timeout_s",
        ),
    ] = None
    max_restarts: Annotated[
        int,
        Setting(
            meaning="worker deaths that are tolerated; after more, the stream fails",
            table="run",
            unit="per minute",
            least=0,
        ),
    ] = 20
    on_error: Annotated[
        OnError | None,
        Setting(
            meaning="substitute or raise; by default regions and slides that cannot be read are "
            "substituted, but slides that cannot give the resolution, and errors in the user's "
            "code, are raised",
            table="run",
            example="substitute",
        ),
    ] = None
    tfms_in: Annotated[
        Where,
        Setting(
            meaning=(
                "where the transform runs: in the collectors, or (consumer) in the training process"
            )
        ),
    ] = "collectors"
    checkpoints: Annotated[
        bool,
        Setting(
            meaning="a load with the user's classes waits for earlier loads of the same patient"
        ),
    ] = True
    bigchunkloader: type[Any] | None = None
    smallchunkcollector: type[Any] | None = None
    const_global_info: Any = None
    tfms: Callable[[Any], Any] | None = None
    collate_func: Callable[..., Any] | None = None
    schedule: Policy | None = None


def has_passes(given: Mapping[str, Any]) -> bool:
    """Whether a stream with these arguments, not checked yet, has passes that end."""
    endless = given.get("cycles", 1) in (None, "endless")
    return bool(given.get("grid")) or (not given.get("replacement", True) and not endless)
