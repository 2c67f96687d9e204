"""A setting is declared once; whatever else says something of it says the same."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from chunkdl import BigChunkLoader, Dataset, LightDL
from chunkdl.engine.settings.arguments import Arguments, Reader
from chunkdl.engine.settings.checks import checked_detector
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.settings.setting import Declared, declared
from chunkdl.errors import ConfigError
from chunkdl.sampling.resolutions import Continuous, Mixture
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.readers.registry import READERS
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.otsu import Otsu
from tests.annotations.boxes import box, geojson_of

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
OTHER_NAMES = {
    "bigchunkloader": "type_bigchunkloader",
    "smallchunkcollector": "type_smallchunkcollector",
    "checkpoints": "flag_enable_setgetcheckpoint",
}
"""Arguments of `LightDL` whose names are PyDmed's."""
HEADS = {
    "stream": "What is in the batches",
    "run": "What works on it",
    "": "In Python only",
}
OF_SERVICE: dict[type[Any], str] = {
    ServiceSettings: "Of a service: the table [service]",
    GroupSpec: "Of a group of consumers: the tables [groups.NAME]",
}


def told(one: Declared) -> str:
    """A setting as a row of the page."""
    setting = one.setting
    default = "" if one.default is None else f"`{one.default}`"
    of = {"rows": "the rows", "batches": "the batches", "": ""}[setting.identity]
    key = f"`{one.name}`" if one.key == one.name else f"`{one.name}` (file: `{one.key}`)"
    return f"|{key}|{default}|{setting.unit}|{setting.meaning}|{of}|"


def told_of_service(one: Declared) -> str:
    """A setting of a service as a row of the page."""
    _, _, default = one.file_field()
    shown = "" if default in (None, ()) else f"`{default}`"
    return f"|`{one.key}`|{shown}|{one.setting.unit}|{one.setting.meaning}|"


def tables() -> str:
    """All settings, as the page has them."""
    parts = []
    for table, head in HEADS.items():
        rows = [told(one) for one in declared(Arguments) if one.setting.table == table]
        parts.append(
            "\n".join(
                [f"## {head}", "", "|Setting|Default|Unit|Meaning|Changes|", "|-|-|-|-|-|", *rows]
            )
        )
    for kind, head in OF_SERVICE.items():
        rows = [told_of_service(one) for one in declared(kind)]
        parts.append(
            "\n".join([f"## {head}", "", "|Key|Default|Unit|Meaning|", "|-|-|-|-|", *rows])
        )
    return "\n\n".join(parts)


def test_lightdl_has_the_settings_that_are_declared() -> None:
    """Each by its name and with its default; the signature is written out for editors."""
    given = inspect.signature(LightDL.__init__).parameters
    for field in dataclasses.fields(Arguments):
        name = OTHER_NAMES.get(field.name, field.name)
        assert given[name].default == field.default, name


def test_the_page_has_every_setting() -> None:
    """The tables are made from the declarations; run this file to print them anew."""
    assert tables() in PAGE.read_text()


def test_every_number_has_a_bound() -> None:
    """Nothing from outside is of any size."""
    kinds = (Arguments, ServiceSettings, GroupSpec)
    numbers = [one for kind in kinds for one in declared(kind) if one.kind in (int, float)]
    assert len(numbers) > 10
    for one in numbers:
        setting = one.setting
        assert setting.check or setting.least is not None or setting.above is not None, one.name


def test_the_readers_that_may_be_asked_for_are_those_that_there_are() -> None:
    """And "auto"."""
    assert set(get_args(Reader)) == {"auto", *READERS}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One small slide with two levels."""
    path = tmp_path_factory.mktemp("settings") / "s.tif"
    write_coordinate_slide(path, 512, 512, tile=128, levels=(1, 2), mpp=0.5)
    return Dataset.from_slides(path)


class OwnLoader(BigChunkLoader):
    """One of a user."""


SMALL: dict[str, Any] = {
    "smallchunk_size": 32,
    "bigchunk_size": 128,
    "num_bigchunks": 2,
    "tissue": None,
    "memory_limit": "64MiB",
    "num_loaders": 1,
}
OTHERS: dict[str, Any] = {
    "batch_size": 3,
    "smallchunk_size": 33,
    "bigchunk_size": 129,
    "mpp": 1.0,
    "level": 1,
    "downsample": 2.0,
    "magnification": "10x",
    "resolution_policy": "nearest",
    "max_relative_deviation": 0.1,
    "num_bigchunks": 3,
    "reuse": 2.0,
    "smallchunks_per_bigchunk": 7,
    "tissue": "hsv",
    "tissue_threshold": 0.25,
    "pixel_filter": "midnight",
    "annotations": "drawn",
    "annotation_reading": {"format": "geojson"},
    "region_names": {"a": "b"},
    "balance": "slide",
    "roi": "outside",
    "regions": {"a": 1},
    "region_label": "largest",
    "cells": "all",
    "reader": "tiff",
    "channels": (0,),
    "window": (0, 100),
    "icc": "srgb",
    "grid": True,
    "replacement": False,
    "cycles": 2,
    "stride": 16,
    "edge": "pad",
    "edge_fill": (0, 0, 0),
    "grid_order": "dataset",
    "seed": 1,
    "order": "relaxed",
    "num_loaders": 2,
    "num_collectors": 2,
    "memory_limit": "65MiB",
    "batch_slots": 9,
    "mask_cache": "masks",
    "cpu_affinity": (),
    "stall_timeout": 5.0,
    "hook_timeout": 5.0,
    "max_restarts": 1,
    "on_error": "raise",
    "tfms_in": "consumer",
    "checkpoints": False,
}
WITH: dict[str, dict[str, Any]] = {
    **{name: {"grid": True} for name in ("drop_last", "shuffle", "stride", "edge", "grid_order")},
    "edge_fill": {"grid": True, "edge": "pad"},
    "cycles": {"replacement": False},
    "max_relative_deviation": {"mpp": 1.0},
    **{
        name: {"annotations": "drawn"}
        for name in (
            *("annotation_reading", "region_names", "roi", "regions", "label_mask"),
            *("region_label", "region_shares", "cells"),
        )
    },
}
"""Settings that are for something else as well."""


@pytest.mark.parametrize("one", list(declared(Arguments)), ids=lambda one: one.name)
def test_a_setting_is_part_of_the_stream_as_it_is_declared(
    dataset: Dataset, one: Declared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes the rows changes both hashes, what changes the batches one, the rest none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "s.geojson").write_bytes(geojson_of(box(10, 10, 300, 300, "a")))
    before = {**SMALL, **WITH.get(one.name, {})}
    plain = configure(dataset, Arguments(**before))
    other = configure(dataset, Arguments(**{**before, one.name: OTHERS.get(one.name, True)}))
    changed = (plain.rows_hash != other.rows_hash, plain.plan_hash != other.plan_hash)
    expected = {"rows": (True, True), "batches": (False, True), "": (False, False)}
    # What is drawn on the slides is part of the stream, wherever it lies.
    of_files = one.name == "annotations"
    assert changed == ((True, True) if of_files else expected[one.setting.identity])


def test_a_resolution_that_is_drawn_is_part_of_the_stream(dataset: Dataset) -> None:
    """By what is drawn and not by how it was written."""

    def hash_of(wish: Any) -> str:
        return configure(dataset, Arguments(**{**SMALL, "mpp": wish})).rows_hash

    equal = {0.5: 1, 1.0: 2}, {1.0: 4.0, 0.5: 2.0}, {"0.5": 1, "1.0": 2}, Mixture({0.5: 1, 1: 2})
    assert len({hash_of(wish) for wish in equal}) == 1
    assert hash_of({1.0: 7}) == hash_of(1.0)
    other = 1.0, {0.5: 1, 1.0: 1}, Continuous(0.5, 1.0), {"low": 0.5, "high": 1.0, "density": "log"}
    assert len({hash_of(wish) for wish in (*other, equal[0])}) == 5


def test_the_same_wish_in_other_words_is_the_same_stream(dataset: Dataset) -> None:
    """What is meant by default may be said."""
    plain = configure(dataset, Arguments(**SMALL))
    for words in (
        *({"level": 0}, {"level": 0.0}, {"level": 0, "resolution_policy": "error"}),
        *({"tissue": "none"}, {"reader": np.str_("auto")}, {"drop_last": True}),
    ):
        assert configure(dataset, Arguments(**{**SMALL, **words})).plan_hash == plain.plan_hash


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ({"smallchunks_per_bigchunk": 5}, {"reuse": 3.0}),
        ({"grid": True}, {"reuse": 3.0}),
        ({"level": 1}, {"max_relative_deviation": 0.2}),
        ({"mpp": 1.0, "resolution_policy": "ceil"}, {"max_relative_deviation": 0.2}),
        ({"grid": True}, {"num_bigchunks": 7}),
        ({"grid": True}, {"stride": 32, "edge_fill": [255, 255, 255]}),
        ({"replacement": False}, {"reuse": 3.0, "stride": 32}),
        ({"replacement": False, "cycles": None}, {"cycles": "endless", "drop_last": True}),
        ({"bigchunkloader": OwnLoader}, {"num_bigchunks": 9}),
        ({"bigchunkloader": OwnLoader}, {"smallchunks_per_bigchunk": 100}),
    ],
)
def test_what_changes_nothing_is_not_part_of_the_stream(
    dataset: Dataset, before: dict[str, Any], words: dict[str, Any]
) -> None:
    """A state goes on though a setting differs that the stream does not look at."""
    one = configure(dataset, Arguments(**{**SMALL, **before}))
    other = configure(dataset, Arguments(**{**SMALL, **before, **words}))
    assert other.plan_hash == one.plan_hash


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *((name, 10**400) for name in ("mpp", "reuse", "tissue_threshold", "stall_timeout")),
        *(("memory_limit", value) for value in ("9" * 400, "0.5", 0.5, 2**80)),
    ],
)
def test_a_number_beyond_all_bounds_is_refused_by_its_name(
    dataset: Dataset, setting: str, value: object
) -> None:
    """Whatever Python makes of it; and in a line that can be read."""
    with pytest.raises(ConfigError, match=f"^{setting}=") as refused:
        configure(dataset, Arguments(**{**SMALL, setting: value}))
    assert len(str(refused.value)) < 200


def test_the_least_share_of_tissue_is_more_than_none(dataset: Dataset) -> None:
    """Shares are 32-bit floats: a smaller one would let patches without any tissue pass."""
    for least in (5e-324, 1e-44, 1e-7):
        config = configure(dataset, Arguments(**{**SMALL, "tissue_threshold": least}))
        assert np.float32(config.stream.tissue_threshold) > 0
    assert (
        configure(dataset, Arguments(**{**SMALL, "tissue_threshold": 0})).stream.tissue_threshold
        == 0
    )


def test_a_detector_has_a_form_of_plain_data() -> None:
    """By name, and by name and parameters, as a file has it."""
    assert checked_detector("tissue", {"name": "otsu", "closing": 2}) == Otsu(closing=2)
    assert checked_detector("tissue", {"name": "hsv", "hue": [90, 360]}) == HsvRange((90.0, 360.0))
    assert HsvRange(value=(0.4, 1)).key == HsvRange(value=(0.4, 1.0)).key
    assert Otsu(lowest=0, closing=int(np.int64(4))).key == Otsu(lowest=0.0).key
    with pytest.raises(ConfigError, match="hue must be two numbers"):
        HsvRange(hue=(1, 2, 3))  # type: ignore[arg-type]
    for wrong, message in (
        ({}, "no tissue detector None"),
        ({"name": "clem"}, "no tissue detector 'clem'"),
        ({"name": "otsu", "hue": 1}, "'otsu' has no parameter 'hue'; it has lowest"),
        ({"name": "otsu", "closing": "much"}, "'otsu': Expected `int`"),
        ({"name": "hsv", "value": [0.9, 0.1]}, "low, high"),
        ({"name": "otsu", "separation": float("nan")}, "separation"),
        ({"name": "otsu", "closing": 10**12}, "closing must be 0 to"),
        (Otsu, "is not a detector"),
        (np.zeros((2, 2)), "is not a detector"),
        (SimpleNamespace(name="own", key=7), "is not a detector"),
    ):
        with pytest.raises(ConfigError, match=message):
            checked_detector("tissue", wrong)


if __name__ == "__main__":
    print(tables())
