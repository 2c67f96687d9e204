"""Every mistake that can be seen before anything starts is refused, with a message that helps."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.settings.arguments import Arguments, has_passes
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import (
    ConfigError,
    DatasetError,
    MemoryLimitError,
    ResolutionError,
    SlideError,
)
from chunkdl.patches.hooks import BigChunkLoader, SmallChunkCollector
from chunkdl.sampling.cursor import Cursor
from chunkdl.sampling.policies.in_turn import RoundRobin, Uniform
from chunkdl.sampling.policies.policy import Policy, Situation
from chunkdl.sampling.policies.quota import Quota
from chunkdl.sampling.policies.weighted import Weighted
from chunkdl.sampling.resolutions import DrawnResolution, FixedResolution, Mixture
from chunkdl.slides.resolution import Resolution
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.slides.tissue.detectors.clam import Clam
from chunkdl.slides.tissue.detectors.combined import TissueAll
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.detectors.own_tissue import OwnTissue
from chunkdl.transport.memory.layouts import RECORD
from tests.slides.huge_slide import write_huge_slide

GOOD = Arguments(
    batch_size=4,
    smallchunk_size=32,
    bigchunk_size=128,
    num_bigchunks=2,
    tissue="none",
    on_error="substitute",
    num_loaders=1,
    num_collectors=1,
    memory_limit="64MiB",
    batch_slots=2,
    stall_timeout=10.0,
    max_restarts=3,
)


@pytest.fixture(scope="session")
def two_slides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny slides, 512x384 at 0.5 microns per pixel."""
    folder = tmp_path_factory.mktemp("settings")
    paths = folder / "one.tif", folder / "two.tif"
    for number, path in enumerate(paths):
        write_coordinate_slide(path, 512, 384, tile=128, slide_id=number)
    return paths


@pytest.fixture(scope="session")
def dataset(two_slides: tuple[Path, Path]) -> Dataset:
    """One patient per slide."""
    return Dataset.from_slides(two_slides)


def configured(dataset: Dataset, **changes: Any) -> EngineConfig:
    """The configuration of GOOD with changes."""
    return configure(dataset, dataclasses.replace(GOOD, **changes))


WRONG: list[tuple[str, object]] = [
    ("tissue_threshold", "half"),
    ("tissue_threshold", None),
    ("stall_timeout", "long"),
    ("stall_timeout", float("inf")),
    ("mask_cache", 5),
    ("cpu_affinity", 5),
    ("tissue", 5),
    ("reuse", True),
    ("grid", "no"),
    ("drop_last", 1),
    *(("batch_size", value) for value in (0, -1, 10**6, 1.5, "4", True, None)),
    *(("smallchunk_size", value) for value in (0, 20_000, "32", 129)),
    *(("bigchunk_size", value) for value in (0, 31, 40_000, None)),
    *(("level", value) for value in (-1, 1.5, True, "0", float("nan"))),
    *(("mpp", value) for value in (0, -1, "x", float("inf"), float("nan"))),
    *(("downsample", value) for value in (0, -2, "x", float("nan"))),
    *(("resolution_policy", value) for value in ("best", "", 5)),
    *(("num_bigchunks", value) for value in (0, -1, 10**6, 2.0)),
    *(("reuse", value) for value in (0, -1, 1001, "x", float("nan"), None)),
    *(("smallchunks_per_bigchunk", value) for value in (0, 1.5, 10**6)),
    ("tissue", "magic"),
    *(("tissue_threshold", value) for value in (-0.1, 1.1, float("nan"))),
    *(("reader", value) for value in ("best", 5)),
    *(("channels", value) for value in (1, (), (0, 1), (0, 1, -1), "rgb", (0.5,))),
    *(("window", value) for value in (5, (1,), (1, 1), (9, 2), ("a", 3), (0, float("inf")))),
    *(("icc", value) for value in ("adobe", 3, True)),
    *(("seed", value) for value in (-1, 2**64, 1.0, None)),
    *(("order", value) for value in ("random", None)),
    ("on_error", "ignore"),
    *(("num_loaders", value) for value in (0, -1, 2.0, 5000)),
    *(("num_collectors", value) for value in (0, -1, 2.0, 5000)),
    *(("memory_limit", value) for value in ("x", 0, -1, True, None, "-4GiB")),
    *(("batch_slots", value) for value in (1, 0, 5000, None)),
    *(("cpu_affinity", value) for value in ([10**6], [-1], ["0"])),
    *(("stall_timeout", value) for value in (0, -1, float("nan"))),
    *(("max_restarts", value) for value in (-1, 1.5)),
    *(("hook_timeout", value) for value in (0, -1, "long", float("nan"))),
    *(("tfms_in", value) for value in ("here", None)),
    *(("schedule", value) for value in ("at random", 5, {"a": 1})),
]


@pytest.mark.parametrize(("setting", "value"), WRONG)
def test_a_wrong_argument_is_refused_by_its_name(
    dataset: Dataset, setting: str, value: object
) -> None:
    """As a ConfigError that names the setting; no process is started for it."""
    children = psutil.Process().children()
    with pytest.raises(ConfigError, match=setting.replace("tissue", "(?i)tissue")):
        configured(dataset, **{setting: value})
    assert psutil.Process().children() == children


def test_one_resolution_is_asked_for_at_most(dataset: Dataset) -> None:
    """The message names those that were given."""
    with pytest.raises(ConfigError, match="not mpp, downsample"):
        configured(dataset, mpp=0.5, downsample=2)


def test_a_resolution_that_the_slides_do_not_have_is_refused_at_the_start(
    dataset: Dataset,
) -> None:
    """With what they have."""
    with pytest.raises(ResolutionError, match=r"level=9 .* level 0"):
        configured(dataset, level=9)
    with pytest.raises(ResolutionError, match=r"mpp=0.1 is finer"):
        configured(dataset, mpp=0.1)
    with pytest.raises(ResolutionError, match="smallchunk_size=400 is larger than 2 of 2 slides"):
        configured(dataset, smallchunk_size=400, bigchunk_size=400)


def test_a_memory_limit_that_is_too_small_says_what_would_do(dataset: Dataset) -> None:
    """What takes how much, and what to lower."""
    with pytest.raises(MemoryLimitError) as caught:
        configured(dataset, memory_limit="100KiB")
    for word in ("memory_limit", "num_bigchunks=2", "bigchunk_size", "batch_size"):
        assert word in str(caught.value)


def test_more_memory_than_the_machine_has_is_refused_before_it_is_taken(dataset: Dataset) -> None:
    """Twelve terabytes, within a limit of a hundred."""
    with pytest.raises(MemoryLimitError, match=r"are\s+available here; lower num_bigchunks"):
        configured(
            dataset, num_bigchunks=4096, bigchunk_size=32768, memory_limit="100TiB", reuse=0.01
        )


@pytest.mark.parametrize("limit", ["400KiB", "1MiB", "64MiB"])
def test_the_memory_limit_is_kept(dataset: Dataset, limit: str) -> None:
    """Look-ahead is what gives way; the open BigChunks and one more are always there."""
    config = configured(dataset, memory_limit=limit, num_loaders=8)
    taken = sum(config.run.memory_bytes)
    assert taken <= {"400KiB": 400 * 2**10, "1MiB": 2**20, "64MiB": 2**26}[limit]
    assert 3 <= config.run.bigchunk_slots <= 2 + 2 * 8 + 2


@pytest.mark.parametrize("wish", [{}, {"mpp": 0.5}, {"mpp": 1.5}, {"mpp": {0.5: 1, 2.5: 1}}])
def test_a_slot_has_room_for_the_wished_reuse_and_no_more(
    tmp_path: Path, wish: dict[str, Any]
) -> None:
    """The pixels, and a record for each SmallChunk, whatever the resolution."""
    write_coordinate_slide(tmp_path / "s.tif", 2048, 2048, tile=128, levels=(1, 4), mpp=0.5)
    config = configured(
        Dataset.from_slides(tmp_path), bigchunk_size=1024, reuse=64.0, memory_limit="2GiB", **wish
    )
    records = RECORD.itemsize * 64 * (1024 // 32) ** 2
    assert 0 < config.run.bigchunk_slot_bytes - 1024 * 1024 * 3 - records < 64 * 1024


@pytest.mark.parametrize("power", ["20x", "20", 20, 20.0, " 20X ", "20×", {"20x": 3}])
def test_a_magnification_is_ten_microns_divided_by_it(
    two_slides: tuple[Path, Path], power: object
) -> None:
    """However it is written; a mixture has weights by power."""
    dataset = Dataset.from_slides(two_slides)
    found = configured(dataset, magnification=power).stream.resolution
    assert found == FixedResolution(Resolution("mpp", 0.5, "resample", by_objective=True))
    two = configured(dataset, magnification={"20x": 1, "10": 3}).stream.resolution
    assert two == DrawnResolution(
        "mpp", Mixture({0.5: 1.0, 1.0: 3.0}), "resample", by_objective=True
    )


@pytest.mark.parametrize(
    "power",
    ["fast", "0x", "x", -20, True, [20], {"20x": 1, 20: 1}, {"20x": -1}, {}, "1e999", 10**9],
)
def test_what_is_no_magnification_is_refused(two_slides: tuple[Path, Path], power: object) -> None:
    """Naming the setting."""
    with pytest.raises(ConfigError, match="magnification"):
        configured(Dataset.from_slides(two_slides), magnification=power)


def patients(*records: object) -> Dataset:
    """A dataset with one patient for each."""
    return Dataset("d", [Patient(n, {"s": record}) for n, record in enumerate(records)])


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), 10_000, "0.5", [0.5], (0.5, 0)])
def test_an_impossible_mpp_of_a_record_is_refused(
    two_slides: tuple[Path, Path], mpp: object
) -> None:
    """Naming the patient and the file."""
    record = Record("/", str(two_slides[0])[1:], {"mpp": mpp})
    with pytest.raises(DatasetError, match=r"patient 0: mpp=.*one\.tif"):
        configured(patients(record))


def test_a_dataset_without_slides_is_refused(tmp_path: Path) -> None:
    """No patients, a patient without a slide, a file that is not there, no dataset at all."""
    with pytest.raises(DatasetError, match="'d' has no patients"):
        configured(patients())
    with pytest.raises(DatasetError, match="patient 0 has no record that is a slide"):
        configured(patients(Record("/", "notes.txt")))
    with pytest.raises(DatasetError, match=r"patient 0: there is no file .*gone\.svs"):
        configured(patients(Record(str(tmp_path), "gone.svs")))
    with pytest.raises(DatasetError, match="not of class list"):
        configured([])  # type: ignore[arg-type]


def test_files_that_cannot_be_opened_are_left_for_later_unless_all_are(
    two_slides: tuple[Path, Path], tmp_path: Path
) -> None:
    """One bad slide of two is reported when its turn comes; nothing but bad ones is an error."""
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"no slide")
    good = Record("/", str(two_slides[0])[1:])
    assert len(configured(patients(Record(str(tmp_path), "bad.svs"), good)).slides) == 2
    with pytest.raises(SlideError, match=r"bad\.svs"):
        configured(patients(Record(str(tmp_path), "bad.svs")))


class OwnLoader(BigChunkLoader):
    """A class of the user."""


class OwnCollector(SmallChunkCollector):
    """A class of the user."""


PLAN: dict[str, object] = {
    "batch_size": 5,
    "smallchunk_size": 33,
    "bigchunk_size": 129,
    "level": 1,
    "mpp": 1.0,
    "downsample": 2.0,
    "magnification": "20x",
    "resolution_policy": "nearest",
    "max_relative_deviation": 0.2,
    "num_bigchunks": 3,
    "reuse": 2.0,
    "smallchunks_per_bigchunk": 7,
    "tissue": "otsu",
    "tissue_threshold": 0.25,
    "pixel_filter": "midnight",
    "reader": "tiff",
    "channels": (2, 1, 0),
    "window": (0, 4095),
    "icc": "srgb",
    "grid": True,
    "seed": 1,
    "bigchunkloader": OwnLoader,
    "smallchunkcollector": OwnCollector,
    "schedule": RoundRobin(),
    # Of classes of the user only; see below.
    "checkpoints": False,
}
RUN: dict[str, object] = {
    "order": "relaxed",
    "on_error": "raise",
    "num_loaders": 3,
    "num_collectors": 2,
    "memory_limit": "32MiB",
    "batch_slots": 5,
    "mask_cache": "/proc/nowhere",
    "cpu_affinity": sorted(os.sched_getaffinity(0))[:1],
    "stall_timeout": 1.0,
    "max_restarts": 0,
    "hook_timeout": 5.0,
    # What they hold may be anything, so a state cannot tell.
    "const_global_info": {"any": "thing"},
    "tfms": len,
    "tfms_in": "consumer",
    "collate_func": lambda chunks, tfms: chunks,
}


OF_GRID: dict[str, Any] = {
    "drop_last": True,
    "shuffle": True,
    "stride": 100,
    "edge": "pad",
    "grid_order": "dataset",
}
"""Arguments of the plan that are for a grid pass alone."""
OF_EDGES: dict[str, Any] = {"edge_fill": (0, 0, 0)}
"""Those that are for its padded edges alone."""
OF_ANNOTATIONS = {
    "annotations",
    "annotation_reading",
    "region_names",
    "roi",
    "regions",
    "label_mask",
    "region_label",
    "region_shares",
    "cells",
    "balance",
}
"""What each of them changes is tried with annotations, in `test_annotated`, and with labels."""
OF_CYCLES: dict[str, Any] = {"cycles": 2}
"""Those that are for a stream without replacement alone."""


@pytest.mark.parametrize("name", ["shuffle", "stride", "edge", "edge_fill", "grid_order"])
def test_what_is_for_a_grid_is_refused_for_an_endless_stream(dataset: Dataset, name: str) -> None:
    """It would do nothing, wherever it was asked for."""
    with pytest.raises(ConfigError, match="only for grid=True"):
        configured(dataset, **{name: {**OF_GRID, **OF_EDGES}[name]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"edge_fill": (0, 0, 0)}, 'edge_fill is only for edge="pad"'),
        ({"shuffle": True, "grid_order": "dataset"}, "contradict each other"),
        ({"stride": 0}, "stride=0 must be an integer of at least 1"),
        ({"stride": 1}, "stride=1 makes .* SmallChunks of a BigChunk .* raise stride"),
        ({"edge": "pad", "edge_fill": (0, 0)}, "must be three integers from 0 to 255"),
        ({"edge": "pad", "edge_fill": (0, 0, 256)}, "must be three integers from 0 to 255"),
        ({"edge": "wrap"}, "edge='wrap' is unknown"),
        ({"grid_order": "file"}, "grid_order='file' is unknown"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(
    dataset: Dataset, given: dict[str, Any], message: str
) -> None:
    """With the setting, and what to do."""
    sizes = {"smallchunk_size": 32, "bigchunk_size": 1024}
    with pytest.raises(ConfigError, match=message):
        configured(dataset, **{**sizes, "grid": True, **given})


@pytest.mark.parametrize(
    ("given", "finite"),
    [
        ({}, False),
        ({"grid": True}, True),
        ({"replacement": False}, True),
        ({"replacement": False, "cycles": 3}, True),
        ({"replacement": False, "cycles": None}, False),
        ({"replacement": False, "cycles": "endless"}, False),
    ],
)
def test_a_stream_has_passes_before_and_after_it_is_checked(
    dataset: Dataset, given: dict[str, Any], finite: bool
) -> None:
    """Ranks have to know it before anything is configured."""
    assert has_passes(given) == configured(dataset, **given).stream.finite == finite


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bigchunkloader": OwnLoader, "smallchunkcollector": OwnCollector}, "built-in classes"),
        ({"schedule": RoundRobin()}, "no schedule yet; remove schedule="),
    ],
)
def test_what_has_no_cycles_yet_is_refused(
    dataset: Dataset, given: dict[str, Any], message: str
) -> None:
    """Own classes and schedules, rather than that positions come twice."""
    with pytest.raises(ConfigError, match=message):
        configured(dataset, replacement=False, **given)


def test_a_grid_of_too_many_positions_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """By the header of the slide, with its name."""
    path = tmp_path / "wide.tif"
    write_huge_slide(path, 60_000, 50_000, (0.2, 0.8), (0.2, 0.8))
    with pytest.raises(ConfigError, match=r"wide\.tif.* positions of a slide of 60000x50000 px"):
        configured(
            Dataset.from_slides(path),
            grid=True,
            smallchunk_size=224,
            bigchunk_size=512,
            stride=2,
        )


def test_every_argument_is_one_of_the_plan_or_one_of_the_run() -> None:
    """A new argument has to be put on one side here."""
    given = {field.name for field in dataclasses.fields(Arguments)}
    known = {*PLAN, *RUN, *OF_GRID, *OF_EDGES, *OF_CYCLES, *OF_ANNOTATIONS}
    assert given == {*known, "replacement"}


def test_the_plan_hash_tells_every_plan_apart(dataset: Dataset) -> None:
    """Each plan argument changes it, and each in its own way; so do parameters of a detector."""
    of_hooks = {"checkpoints"}
    hashes = [
        configured(dataset, **{name: value}).plan_hash
        for name, value in PLAN.items()
        if name not in {*of_hooks, "max_relative_deviation"}
    ]
    hashes.append(configured(dataset, mpp=1.0, max_relative_deviation=0.2).plan_hash)
    hashes.append(configured(dataset).plan_hash)
    hashes += [
        configured(dataset, grid=True, **{name: value}).plan_hash for name, value in OF_GRID.items()
    ]
    hashes.append(configured(dataset, grid=True, edge="pad", **OF_EDGES).plan_hash)
    hashes += [
        configured(dataset, replacement=False, **given).plan_hash
        for given in ({}, OF_CYCLES, {"cycles": None}, {"stride": 100}, {"num_bigchunks": 3})
    ]
    own: dict[str, Any] = {"bigchunkloader": OwnLoader, "smallchunkcollector": OwnCollector}
    hashes += [configured(dataset, **own, **{name: PLAN[name]}).plan_hash for name in of_hooks]
    hashes.append(configured(dataset, **own).plan_hash)
    hashes += [
        configured(dataset, tissue=detector).plan_hash
        for detector in (Otsu(smallest=65), Otsu(smallest=66), HsvRange())
    ]
    assert len(set(hashes)) == len(hashes)


def test_the_plan_hash_is_that_of_the_detector_however_it_is_said(dataset: Dataset) -> None:
    """By name, as a table, as an object; of a function by its name and version."""
    hashes = [
        {configured(dataset, tissue=said).plan_hash for said in ways}
        for ways in (
            ("clam-tcga", {"name": "clam", "a_t": 16, "a_h": 4.0}, Clam(a_t=16, a_h=4)),
            ("otsu", {"name": "otsu"}, Otsu()),
            ({"name": "all", "detectors": ["otsu", "hsv"]}, TissueAll(Otsu(), HsvRange())),
            (OwnTissue(len, "1", "a"), OwnTissue(max, "1", "a")),
            (OwnTissue(len, "2", "a"),),
        )
    ]
    assert [len(of_one) for of_one in hashes] == [1] * len(hashes)
    assert len(set.union(*hashes)) == len(hashes)


def test_the_plan_hash_is_blind_to_how_the_stream_is_run(dataset: Dataset) -> None:
    """A state goes on with any number of processes, in any order, on a smaller machine."""
    plain = configured(dataset).plan_hash
    for name, value in RUN.items():
        assert configured(dataset, **{name: value}).plan_hash == plain, name
    own: dict[str, Any] = {"bigchunkloader": OwnLoader, "smallchunkcollector": OwnCollector}
    hooks = configured(dataset, **own).plan_hash
    for name, value in RUN.items():
        assert configured(dataset, **own, **{name: value}).plan_hash == hooks, name
    assert configured(dataset, level=0, resolution_policy="error").plan_hash == plain


def test_the_plan_hash_depends_on_the_dataset_and_not_on_where_it_lies(
    two_slides: tuple[Path, Path], tmp_path: Path
) -> None:
    """Order, ids, grouping and overrides count; the folder does not."""
    one, two = (Record("/", str(path)[1:]) for path in two_slides)
    plain = configured(patients(one, two)).plan_hash
    moved = []
    for path in two_slides:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        moved.append(Record(str(tmp_path), path.name))
    assert configured(patients(*moved)).plan_hash == plain
    grouped = Dataset("d", [Patient(0, {"a": one, "b": two})])
    other_ids = Dataset("d", [Patient(0, {"s": one}), Patient(5, {"s": two})])
    override = patients(Record("/", str(two_slides[0])[1:], {"mpp": 0.25}), two)
    others = [patients(two, one), patients(one), grouped, other_ids, override]
    hashes = {configured(other).plan_hash for other in others}
    assert len(hashes) == len(others)
    assert plain not in hashes


def test_a_configuration_begins_at_the_beginning_with_a_secret_of_its_own(
    dataset: Dataset,
) -> None:
    """The cursor is the first batch's; no two services share a token."""
    first, second = configured(dataset), configured(dataset)
    assert Cursor.from_dict(first.cursor, first.plan_hash).next_batch == 0
    assert len(first.token) == 16
    assert first.token != second.token


def test_every_patient_has_its_slides_in_order(two_slides: tuple[Path, Path]) -> None:
    """The table of slides is what indices in messages mean."""
    one, two = (Record("/", str(path)[1:]) for path in two_slides)
    dataset = Dataset("d", [Patient(4, {"a": one, "b": two}), Patient(2, {"a": two})])
    config = configured(dataset)
    assert config.slides_of_patient == ((0, 1), (2,))
    assert [entry.patient for entry in config.slides] == [0, 0, 1]
    assert [entry.path for entry in config.slides] == [one.path, two.path, two.path]


def test_processes_are_as_many_as_the_cores_unless_said(dataset: Dataset) -> None:
    """A loader each, a collector for every six."""
    config = configured(dataset, num_loaders=None, num_collectors=None)
    have = len(os.sched_getaffinity(0))
    assert (config.run.num_loaders, config.run.num_collectors) == (have, max(1, have // 6))


def test_a_given_mask_is_part_of_the_plan(two_slides: tuple[Path, Path]) -> None:
    """Another mask is another stream; the same cells are the same one."""

    def hash_with(mask: object) -> str:
        record = Record("/", str(two_slides[0])[1:], {"tissue_mask": mask})
        return configured(patients(record)).plan_hash

    everything = np.ones((3, 4), dtype=bool)
    half = everything.copy()
    half[:2] = False
    assert hash_with(everything) == hash_with(everything.copy())
    assert hash_with(everything) != hash_with(half)


def test_numpy_integers_are_integers(dataset: Dataset) -> None:
    """Sizes that come out of an array are taken."""
    assert configured(dataset, batch_size=np.int64(8)).stream.batch_size == 8


class OwnPolicy(Policy):
    """A policy of the user."""

    def choose(self, now: Situation) -> int:
        return now.waiting[0]


class OtherPolicy(OwnPolicy):
    """Another one."""


def test_every_policy_is_a_plan_of_its_own(dataset: Dataset) -> None:
    """Built-in ones with their parameters, those of the user with their names."""
    policies: list[Policy | None] = [
        None,
        Uniform(),
        RoundRobin(),
        Weighted([1, 2]),
        Weighted([2, 1]),
        Quota(Uniform(), 3),
        Quota(Uniform(), 4),
        Quota(RoundRobin(), 3),
        OwnPolicy(),
        OtherPolicy(),
        Quota(OwnPolicy(), 3),
    ]
    hashes = {configured(dataset, schedule=policy).plan_hash for policy in policies}
    assert len(hashes) == len(policies)


def test_only_a_policy_of_the_user_gets_a_process(dataset: Dataset) -> None:
    """The built-in ones are asked by the coordinator itself, also where they are wrapped."""
    asked = configured(dataset, schedule=Quota(Uniform(), 3))
    assert not asked.has_scheduler
    assert asked.stream.policy is not None
    for own in (OwnPolicy(), Quota(OwnPolicy(), 3)):
        config = configured(dataset, schedule=own)
        assert config.has_scheduler
        assert config.stream.policy is None
        assert "scheduler" in config.user


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bigchunkloader", OwnCollector),
        ("bigchunkloader", OwnLoader.__new__(OwnLoader)),
        ("smallchunkcollector", OwnLoader),
        ("smallchunkcollector", dict),
    ],
)
def test_a_class_that_is_no_hook_is_refused(dataset: Dataset, name: str, value: object) -> None:
    """Naming the class that it has to derive from."""
    base = {"bigchunkloader": "BigChunkLoader", "smallchunkcollector": "SmallChunkCollector"}
    with pytest.raises(ConfigError, match=rf"not a subclass of chunkdl\.{base[name]}"):
        configured(dataset, **{name: value})


def test_a_grid_pass_has_neither_hooks_nor_a_schedule(dataset: Dataset) -> None:
    """Both are refused with the reason."""
    with pytest.raises(ConfigError, match="grid=True works only with the built-in classes"):
        configured(dataset, grid=True, bigchunkloader=OwnLoader)
    with pytest.raises(ConfigError, match="it has no schedule"):
        configured(dataset, grid=True, schedule=Uniform())


@pytest.mark.parametrize("name", ["const_global_info", "tfms", "schedule"])
def test_what_cannot_be_sent_to_a_worker_is_refused(dataset: Dataset, name: str) -> None:
    """Such as a lock; the message says what may be done about it."""
    lock = threading.Lock()

    class WithLock(OwnPolicy):
        """Holds what belongs to one process."""

        def __init__(self) -> None:
            self.lock = lock

    values: dict[str, Any] = {
        "const_global_info": {"lock": lock},
        "tfms": lambda data: (lock, data),
        "schedule": WithLock(),
    }
    with pytest.raises(ConfigError, match="remove what belongs to one process, such as locks"):
        configured(dataset, bigchunkloader=OwnLoader, **{name: values[name]})


def test_a_transform_of_the_training_process_may_hold_anything(dataset: Dataset) -> None:
    """It is not sent anywhere."""
    lock = threading.Lock()
    configured(dataset, tfms=lambda data: (lock, data), tfms_in="consumer")


def test_patients_may_be_without_slides_where_the_user_reads_them(dataset: Dataset) -> None:
    """Files that are not there are none of our business then; slides that are there are known."""
    path = next(iter(dataset)).slides[0].path
    records: dict[str, object] = {
        "gone": Record("/nowhere", "gone.svs"),
        "here": Record("/", path[1:]),
    }
    mixed = Dataset("d", [Patient(0, {}), Patient(1, records)])
    config = configured(mixed, bigchunkloader=OwnLoader)
    assert config.slides_of_patient == ((), (0,))
    assert [entry.path for entry in config.slides] == [path]
    with pytest.raises(DatasetError, match="has no record that is a slide"):
        configured(mixed)


@pytest.mark.parametrize("limit", [2**20, 64 * 2**20])
def test_the_memory_of_hooks_is_shared_equally(dataset: Dataset, limit: int) -> None:
    """A quarter for batches, the rest for the open BigChunks and those to come; never more."""
    run = configured(dataset, bigchunkloader=OwnLoader, memory_limit=limit, num_loaders=3).run
    assert run.bigchunk_slots == 2 + 2 * 3 + 2
    bigchunks, batches = run.memory_bytes
    assert bigchunks + batches <= limit
    assert batches <= limit // 4
    assert bigchunks + batches > 0.9 * limit


def test_it_is_known_what_a_row_shows_but_with_classes_of_the_user(dataset: Dataset) -> None:
    """A transform makes something of the crop, whose overlap with others stays what it is."""
    assert configured(dataset).stream.footprint_px == GOOD.smallchunk_size
    assert configured(dataset, tfms=np.mean).stream.footprint_px == GOOD.smallchunk_size
    assert configured(dataset, bigchunkloader=OwnLoader).stream.footprint_px == 0


def test_a_patient_is_open_once_where_checkpoints_are_kept(dataset: Dataset) -> None:
    """So no more BigChunks are open than there are patients; without them there may be."""
    with_them = configured(dataset, bigchunkloader=OwnLoader, num_bigchunks=9)
    without = configured(dataset, bigchunkloader=OwnLoader, num_bigchunks=9, checkpoints=False)
    assert with_them.stream.num_bigchunks == len(dataset)
    assert with_them.stream.one_load_per_patient
    assert without.stream.num_bigchunks == 9
    assert with_them.stream.smallchunks_per_bigchunk == 100
