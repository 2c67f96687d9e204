"""Random transforms of the libraries that people use, and of their own making.

They get one and the same picture for every row, so that rows differ by what was drawn alone.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.frameworks.torchvision_here import IS_HERE as TORCHVISION_IS_HERE

# albumentations asks the network for a newer version when it is imported.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

PICTURE = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)


def library_of(name: str) -> str:
    """The library that a pipeline needs; empty for none."""
    return name.partition(" ")[0] if name[0].islower() else ""


def is_here(name: str) -> bool:
    """Whether the library of a pipeline is installed."""
    library = library_of(name)
    if library == "torchvision":
        return TORCHVISION_IS_HERE
    return not library or importlib.util.find_spec(library) is not None


def pipeline(name: str) -> Any:
    """A callable on a picture, that draws."""
    match name:
        case "torchvision v1":
            from torchvision import transforms as v1

            jitter = v1.ColorJitter(0.5, 0.5, 0.5, 0.1)
            return v1.Compose([v1.ToPILImage(), v1.RandomResizedCrop(16), jitter, v1.ToTensor()])
        case "torchvision v2":
            from torchvision.transforms import v2

            return v2.Compose(
                [
                    v2.ToImage(),
                    v2.RandomResizedCrop(16),
                    v2.ToDtype(torch.float32, scale=True),
                    v2.ColorJitter(0.5, 0.5, 0.5, 0.1),
                    v2.GaussianNoise(),
                ]
            )
        case "albumentations":
            import albumentations

            steps = [
                albumentations.Affine(rotate=(-90, 90), p=1),
                albumentations.RandomBrightnessContrast(p=1),
                albumentations.GaussNoise(p=1),
            ]
            whole = albumentations.Compose(steps)
            return lambda image: whole(image=image)["image"].astype(np.float32)
        case "monai":
            from monai import transforms as monai

            return monai.Compose(
                [
                    monai.EnsureChannelFirst(channel_dim=-1),
                    monai.RandAffine(prob=1, rotate_range=1.0, padding_mode="reflection"),
                    monai.RandGaussianNoise(prob=1, std=20),
                ]
            )
        case "kornia":
            from kornia import augmentation as kornia

            affine, jitter = kornia.RandomAffine(90, p=1), kornia.ColorJitter(0.2, 0.2, 0.2, 0.1)
            whole = kornia.AugmentationSequential(affine, jitter, data_keys=["input"])
            return lambda image: whole(torch.as_tensor(image / 255.0).permute(2, 0, 1).float())[0]
        case _:
            return OWN[name]()


class Numbers:
    """A transform of one's own: numbers of a generator that was made beforehand."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def __call__(self, image: Any) -> npt.NDArray[np.float64]:
        if isinstance(self.generator, torch.Generator):
            return torch.rand(4, generator=self.generator).double().numpy()
        return np.array([self.generator.random() for _ in range(4)])


class Made:
    """Makes its generator anew each time, without a seed, as functions of libraries do."""

    def __call__(self, image: Any) -> npt.NDArray[np.float64]:
        return np.concatenate([np.random.default_rng().random(3), np.random.RandomState().rand(1)])


class Slotted:
    """No dict of attributes; a list, a dict and a partial around the generator."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        draw = functools.partial(np.random.default_rng(0).normal, size=4)
        self.steps = [{"draw": (draw,)}]

    def __call__(self, image: Any) -> Any:
        return self.steps[0]["draw"][0]()


class Globals:
    """The generators that nobody has to make."""

    def __call__(self, image: Any) -> npt.NDArray[np.float64]:
        return np.array([random.random(), np.random.rand(), float(torch.rand(1)), np.random.rand()])


OWN: dict[str, Any] = {
    "Generator": lambda: Numbers(np.random.default_rng(0)),
    "Philox": lambda: Numbers(np.random.Generator(np.random.Philox(0))),
    "RandomState": lambda: Numbers(np.random.RandomState(0)),
    "RandomState of PCG64": lambda: Numbers(np.random.RandomState(np.random.PCG64(0))),
    "Random": lambda: Numbers(random.Random(0)),
    "Torch": lambda: Numbers(torch.Generator().manual_seed(0)),
    "Unseeded": Made,
    "Slots": Slotted,
    "Globals": Globals,
}

NAMES = [
    *("torchvision v1", "torchvision v2", "albumentations", "monai", "kornia"),
    *OWN,
]


class Everything:
    """All pipelines whose library is here, each on the picture."""

    def __init__(self) -> None:
        self.steps = {name: pipeline(name) for name in NAMES if is_here(name)}

    def __call__(self, image: Any) -> dict[str, npt.NDArray[Any]]:
        return {name: np.asarray(step(PICTURE.copy())) for name, step in self.steps.items()}
