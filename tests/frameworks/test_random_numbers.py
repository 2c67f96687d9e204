"""The rows of random transforms are the same for any number of collectors, and in every run."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from chunkdl import Dataset, LightDL
from chunkdl.errors import HookError
from chunkdl.patches.transforms import Transform
from tests.frameworks.framework_transforms import NAMES, Everything, is_here, library_of

ROWS = 64


class Run(NamedTuple):
    """What the pipelines have made of the first rows, and what was logged of it."""

    rows: list[dict[str, Any]]
    told: list[str]


class Noted(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep its message."""
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def runs(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> list[Run]:
    """Two runs, by one collector and by two; each collector imports all the libraries."""
    found = []
    for collectors in (1, 2):
        noted = Noted()
        logging.getLogger("chunkdl").addHandler(noted)
        given = {**small_stream, "tfms": Everything(), "num_collectors": collectors}
        with LightDL(coordinate_dataset, **given) as loader:
            batches = [loader.next_batch(120) for _ in range(ROWS // 16)]
            rows = [batch.data_of(row) for batch in batches for row in range(16)]
        logging.getLogger("chunkdl").removeHandler(noted)
        found.append(Run(rows, noted.messages))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_random_transform_makes_the_same_rows_for_any_number_of_collectors(
    runs: list[Run], name: str
) -> None:
    """Bit for bit in another run; and no two rows are alike."""
    if not is_here(name):
        pytest.skip(f"{library_of(name)} is not here (make test installs it)")
    one, two = ([np.asarray(row[name]) for row in run.rows] for run in runs)
    assert len(one) == ROWS
    for row, again in zip(one, two, strict=True):
        assert np.array_equal(row, again)
    assert len({row.tobytes() for row in one}) == ROWS


def test_nothing_in_them_is_told_to_be_unseeded(runs: list[Run]) -> None:
    """Neither by what is looked for, nor by rows that were made twice."""
    told = [[line for line in run.told if "num_bigchunks" not in line] for run in runs]
    assert told == [[], []]


def applied(call: Any, number: int, warn: Any = pytest.fail) -> Any:
    """What a transform makes of a small picture, as a collector calls it."""
    picture = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    transform = Transform(call, 1, warn)
    return transform.apply(picture, 0, 0, number, "Ada", lambda: None)


def test_transforms_of_one_pipeline_draw_independently() -> None:
    """Two flips of albumentations get one seed from their Compose; that would flip both or none."""
    albumentations = pytest.importorskip("albumentations")
    flips = albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    )
    corners = [
        int(applied(lambda image: flips(image=image)["image"], number)[0, 0, 0])
        for number in range(64)
    ]
    assert len(set(corners)) == 4
    assert all(corners.count(corner) > 4 for corner in corners)


# ------------------------------------------------------------------ what takes no arrays


def given(library: str) -> tuple[Any, str]:
    """A transform as its documentation has it, and what the error about it says."""
    if library == "torchvision v2":
        from torchvision.transforms import v2

        return v2.Compose(
            [v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32)]
        ), "begin with ToImage"
    if library == "torchvision v1":
        from torchvision import transforms

        return transforms.RandomHorizontalFlip(1), "or with ToPILImage"
    if library == "kornia":
        from kornia import augmentation

        return augmentation.RandomHorizontalFlip(p=1), "image_to_tensor"
    import albumentations

    flip = albumentations.HorizontalFlip()
    return albumentations.Compose([flip]), r"transform\(image=image\)\['image'\]"


@pytest.mark.parametrize(
    "library", ["torchvision v1", "torchvision v2", "albumentations", "kornia"]
)
def test_a_transform_that_takes_no_arrays_is_told_what_to_do(library: str) -> None:
    """torchvision's v2 would leave every row as it was, without a word."""
    if not is_here(library):
        pytest.skip(f"{library_of(library)} is not here (make test installs it)")
    transform, says = given(library)
    with pytest.raises(HookError, match=says):
        applied(transform, 0)


def test_a_v2_transform_inside_a_function_that_does_nothing_is_told() -> None:
    """As a warning: the function may have left it out for this row."""
    if not is_here("torchvision v2"):
        pytest.skip("torchvision is not here (make test installs it)")
    transform, says = given("torchvision v2")
    told: list[str] = []
    applied(lambda image: transform(image), 0, told.append)
    (warning,) = told
    assert says in warning
