"""Several operations in order: the same for a row in any batch, from numpy or from torch."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.torch_maths import TorchMaths
from chunkdl.patches.augmentation.augment import Augment
from chunkdl.patches.augmentation.colours import ColourJitter, Grey, Solarise
from chunkdl.patches.augmentation.crops import Cutout, ResizedCrop
from chunkdl.patches.augmentation.jpeg import Jpeg
from chunkdl.patches.augmentation.named import OPERATIONS, operation_of
from chunkdl.patches.augmentation.operation import Operation, step
from chunkdl.patches.augmentation.quality import Blur, Noise
from chunkdl.patches.augmentation.stains import HedJitter, HedShift, StainJitter
from chunkdl.patches.augmentation.standard import Standard
from chunkdl.patches.augmentation.symmetries import Flip, QuarterTurn, Symmetry
from chunkdl.patches.stain.macenko import Macenko
from chunkdl.patches.stain.reinhard import Reinhard
from tests.patches.stain.stained import (
    DEVICES,
    Pixels,
    as_array,
    as_tensor,
    called,
    levels_apart,
    stained,
)

ROWS = 12
EVERY: list[Operation] = [
    *(Symmetry(), QuarterTurn(), Flip(), Flip("y"), ResizedCrop(31), ColourJitter(), Grey(0.3)),
    *(HedJitter(0.1), HedShift(), StainJitter(Macenko()), StainJitter(Reinhard(mask=True))),
    *(Blur(), Noise(), Jpeg(), Solarise(0.5, 0.5), Cutout()),
]
OWN: dict[str, Any] = {
    "name": "reinhard",
    "means": [60.0, 20.0, -10.0],
    "deviations": [15.0, 9.0, 6.0],
}
ALL = Augment(*EVERY, normalise=Macenko("v2"), standardise="imagenet")


def rows() -> Pixels:
    """Images with two stains."""
    return np.stack([stained(seed, side=40, strength=0.3 + 0.05 * seed) for seed in range(ROWS)])


def some_keys(first: int = 0) -> npt.NDArray[np.uint64]:
    return np.arange(first, first + ROWS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("operation", EVERY, ids=called)
def test_an_operation_is_the_same_in_numpy_and_torch(operation: Operation, device: str) -> None:
    """Within 1/255, with the parameters of each row, in the layout and dtype that were given."""
    images, augment = rows(), Augment(operation)
    one_by_one = np.stack([augment.row(*one) for one in zip(images, some_keys(), strict=True)])
    assert np.array_equal(augment(images, some_keys()), one_by_one)
    tensors = as_tensor(images, device)
    made = augment(tensors, some_keys())
    assert made.dtype == torch.uint8
    assert made.device == tensors.device
    assert made.is_contiguous(memory_format=torch.channels_last)
    apart = np.abs(as_array(made).astype(int) - one_by_one)
    if isinstance(operation, Jpeg):  # what is rounded otherwise there is a step of quantisation
        assert np.mean(apart > 1) < 0.01
    else:
        assert apart.max() <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_is_augmented_alike_in_any_batch(device: str) -> None:
    """All operations at once; alone, in another order, with other rows.

    Vectors of a processor and what is left over differ in the last bit, which JPEG may enlarge.
    """
    images, keys = rows(), some_keys()
    together = as_array(ALL(as_tensor(images, device), keys))
    for order in ([5], [7, 2, 5], [11, 5, 0, 5]):
        some = as_array(ALL(as_tensor(images[order], device), keys[order]))
        assert np.mean(np.abs(some - together[order]) > 1e-4) < 1e-3
    assert np.abs(ALL(images, keys) - together).mean() < 1e-3


@settings(max_examples=25)
@given(st.permutations(range(ROWS)), st.integers(1, ROWS))
def test_a_row_has_its_numbers_wherever_it_stands(order: list[int], count: int) -> None:
    """For any part of the rows, in any order."""
    augment = Augment(Symmetry(), Cutout(), Noise(), HedJitter())
    images, keys = rows()[:, :8, :8], some_keys()
    chosen = order[:count]
    expected = augment(images, keys)[chosen]
    assert np.array_equal(augment(images[chosen], keys[chosen]), expected)


def test_autocast_and_gradients_change_nothing() -> None:
    """The training computes in half precision, and the images have no history."""
    images, keys = as_tensor(rows()).float() / 255, some_keys()
    augment = Augment(ResizedCrop(20), HedJitter())
    expected = augment(images, keys)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = augment(images.requires_grad_(), keys)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_views_and_operations_have_numbers_of_their_own() -> None:
    """Another view, another place in the list, another key: another result."""
    image = rows()[:1]
    shapes = [
        Augment(Noise((0.1, 0.1), 1))(image, [7]),
        Augment(Noise((0.1, 0.1), 1), view=1)(image, [7]),
        Augment(Noise((0.1, 0.1), 1))(image, [8]),
        Augment(Flip(p=0), Noise((0.1, 0.1), 1))(image, [7]),
    ]
    assert len({made.tobytes() for made in shapes}) == len(shapes)


def test_images_are_left_as_they_were() -> None:
    """Also floats of torch, which need no conversion, and whatever is done to them."""
    images = rows() / np.float32(255)
    tensors = as_tensor(rows()).float() / 255
    kept = images.copy(), tensors.clone()
    ALL(images, some_keys())
    Augment(*EVERY)(tensors, some_keys())
    Augment()(tensors, some_keys()).zero_()
    assert np.array_equal(images, kept[0])
    assert torch.equal(tensors, kept[1])


# ---- The order, and the end


def test_the_order_is_normalise_augment_transform_standardise() -> None:
    """As slideflow's; the transform sees the dtype and the layout that were given."""
    seen: list[Any] = []

    def transform(images: Any) -> Any:
        seen.append(images)
        return 255 - images

    whole = Augment(
        Grey(1), normalise=Reinhard(), transform=transform, standardise=Standard("[0,1]")
    )
    images, keys = rows(), some_keys()
    made = whole(images, keys)
    by_hand = Augment(Grey(1))(Reinhard().normalised(images), keys)
    assert levels_apart(seen[0], by_hand) <= 1
    assert np.allclose(made, (255 - seen[0]) / np.float32(255), atol=1e-6)
    assert np.array_equal(Augment(transform=transform)(images, keys), 255 - images)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("[0,1]", 0, 1),
        ("[-1,1]", -1, 1),
        ("imagenet", -0.485 / 0.229, (1 - 0.406) / 0.225),
        ("h-optimus", -0.707223 / 0.211883, (1 - 0.703617) / 0.177517),
    ],
)
def test_standards_have_the_published_numbers(name: str, low: float, high: float) -> None:
    """Of black red, and of white blue; float32 in the layout that was given."""
    image = np.zeros((2, 2, 3), np.uint8)
    image[1] = 255
    made = Augment(standardise=name).row(image, 0)
    assert made.dtype == np.float32
    assert np.isclose(made[0, 0, 0], low, atol=1e-5)
    assert np.isclose(made[1, 1, 2], high, atol=1e-5)
    batch = Augment(standardise=name)(as_tensor(image[None]), [0])
    assert batch.dtype == torch.float32
    assert np.allclose(as_array(batch)[0], made, atol=1e-6)


def test_levels_are_a_standard_too() -> None:
    """Of floats."""
    image = rows()[0]
    assert np.array_equal(Augment(standardise="uint8").row(image / np.float32(255), 0), image)


# ---- From files


def test_every_operation_has_a_name() -> None:
    """Made of its name alone, or with what it needs."""
    needs: dict[str, dict[str, Any]] = {"resized-crop": {"size_px": 8}}
    for name, kind in OPERATIONS.items():
        assert isinstance(operation_of({"name": name, **needs.get(name, {})}), kind)
    assert {type(one) for one in EVERY} == set(OPERATIONS.values())


def test_an_augmentation_of_a_file_is_that_of_python() -> None:
    """Names, names with numbers, lists instead of tuples."""
    said = {
        "normalise": {"name": "macenko", "preset": "v2", "fast": True},
        "operations": [
            "symmetry",
            {"name": "hed", "sigma": 0.1},
            {"name": "blur", "sigma_px": [0.5, 1.0], "p": 0.2},
            {"name": "stain", "normaliser": {"name": "reinhard", "mask": True}, "preset": "v1"},
            {"name": "stain", "normaliser": OWN},
        ],
        "standardise": {"mean": [0.5, 0.5, 0.5], "deviation": [0.2, 0.2, 0.2]},
        "view": 3,
    }
    expected = Augment(
        *(Symmetry(), HedJitter(0.1), Blur((0.5, 1.0), 0.2)),
        *(
            StainJitter(Reinhard(mask=True), "v1"),
            StainJitter(Reinhard(means=(60, 20, -10), deviations=(15, 9, 6))),
        ),
        normalise=Macenko("v2", fast=True),
        standardise=Standard(None, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        view=3,
    )
    assert Augment.of(said) == expected
    assert hash(Augment.of(said)) == hash(expected)
    assert pickle.loads(pickle.dumps(expected)) == expected
    with pytest.raises(ConfigError, match="the mean of a standard"):
        Standard()
    inherits = Augment.of({"normalise": "reinhard", "operations": ["stain"]})
    assert inherits.operations == (StainJitter(Reinhard()),)


def test_the_letters_of_slideflow_have_their_documented_rates() -> None:
    """And "n" takes the place of the normaliser, which is not applied twice."""
    letters = Augment.of("xyrjb")
    assert letters.operations == (
        *(Flip("x", 0.5), Flip("y", 0.5), QuarterTurn(), Jpeg(50, 100, 0.5)),
        Blur((0.5, 2.0), 0.1),
    )
    stains = Augment.of({"operations": "nx", "normalise": "macenko"})
    assert stains == Augment(StainJitter(Macenko(), "v2"), Flip("x", 0.5))
    assert Augment.of({"operations": "x", "normalise": "macenko"}).normalise == Macenko()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("xz", "no operation 'z'; the letters are x, y, r, j, b and n"),
        ("n", "give one with normalise="),
        ({"operation": "x"}, "no part 'operation'; it has operations, normalise"),
        ({"operations": ["hue"]}, "'hue' is not an operation; choose one of 'symmetry'"),
        (
            {"operations": [{"name": "blur", "sigma": 1}]},
            "no parameter 'sigma'; it has sigma_px, p",
        ),
        ({"operations": [{"name": "symmetry", "p": 1}]}, "no parameter 'p'; it has none"),
        ({"operations": ["resized-crop"]}, "needs the parameter 'size_px'"),
        ({"operations": [3]}, "3 is not an operation; give a name"),
        ({"normalise": "vahadane"}, "'vahadane' is not a stain normaliser"),
        ({"standardise": "imagenet2"}, "no standard 'imagenet2'; choose one of 'uint8'"),
        ({"standardise": {"average": 1}}, "no part 'average'; it has to, mean, deviation"),
        ({"view": -1}, "view must be a whole number"),
    ],
)
def test_what_a_file_says_wrongly_is_refused(given: Any, words: str) -> None:
    """With what there is."""
    with pytest.raises(ConfigError, match=words):
        Augment.of(given)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([1, 2], "a key for each of 12 rows, not 2"),
        (np.full(ROWS, -1), "keys must be whole numbers"),
        (np.zeros(ROWS), "keys must be whole numbers"),
        (5, "a key for each of 12 rows"),
    ],
)
def test_keys_that_are_none_are_refused(keys: Any, words: str) -> None:
    """Missing, negative, or no whole numbers."""
    with pytest.raises(ConfigError, match=words):
        Augment(Flip())(rows(), keys)


def test_what_is_no_operation_is_refused() -> None:
    """A name belongs into `Augment.of`."""
    with pytest.raises(ConfigError, match=r"Augment\.of takes names"):
        Augment("symmetry")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="normalise must be Macenko or Reinhard"):
        Augment(normalise="macenko")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="by name, or mean and deviation"):
        Standard("imagenet", (0, 0, 0), (1, 1, 1))
    with pytest.raises(ConfigError, match="above 0"):
        Standard(None, (0, 0, 0), (1, 0, 1))


def test_the_largest_key_is_a_key() -> None:
    """As a number of Python for one row."""
    image = rows()[0]
    assert Augment(Noise()).row(image, 2**64 - 1).shape == image.shape


def test_nothing_is_waited_for() -> None:
    """On a device whose tensors have no values, looking at one raises, and so does mixing devices.

    So what is computed on a GPU stays there, and the training does not stand still.
    """
    device = torch.device("meta")
    maths = TorchMaths(device)
    planes = torch.empty((ROWS, 3, 40, 40), device=device)
    for normaliser in (Macenko(), Reinhard(mask=True)):
        planes = normaliser.onto(maths, planes, normaliser.target)
    for number, operation in enumerate(EVERY):
        planes = step(operation, number, 0, maths, planes, some_keys())
    assert planes.device == device
    assert planes.shape == (ROWS, 3, 31, 31)
    assert planes.dtype == torch.float32
