"""Normalise, augment, transform, standardise: what is done before a network sees images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from chunkdl.errors import ConfigError
from chunkdl.patches.arithmetic.maths import Array
from chunkdl.patches.arithmetic.planes import Taken, take
from chunkdl.patches.augmentation.named import normaliser_of, operations_of
from chunkdl.patches.augmentation.operation import Operation, step
from chunkdl.patches.augmentation.random_numbers import Keys
from chunkdl.patches.augmentation.standard import Standard
from chunkdl.patches.stain.normaliser import Normaliser

MOST_VIEWS = 2**32 - 1


@dataclass(frozen=True, slots=True, init=False)
class Augment:
    """Operations in their order, with the random numbers of each row.

    The numbers of a row come from its key (`row_keys`), from the place of the operation in the list
    and from `view`, and from nothing else. So a row is augmented alike in any batch, with any
    number of workers, after a resume, and by numpy or torch on any device: the numbers are the same
    to the bit, pixels differ by rounding (1/255 for an operation).

    The order is: normalise, the operations, transform, standardise.

    Args:
        *operations: in their order.
        normalise: a stain normaliser that comes first.
        transform: your function of the images after the operations, in the layout and dtype that
            were given: of a whole batch, or with `row` of one row.
        standardise: comes last; None: images have the dtype that was given.
        view: which of several augmentations of the same rows, 0 to 2**32 - 1; another one has other
            random numbers.

    Raises:
        ConfigError: an argument is of another kind.
    """

    operations: tuple[Operation, ...]
    normalise: Normaliser | None
    transform: Callable[[Any], Any] | None
    standardise: Standard | None
    view: int

    def __init__(
        self,
        *operations: Operation,
        normalise: Normaliser | None = None,
        transform: Callable[[Any], Any] | None = None,
        standardise: Standard | str | None = None,
        view: int = 0,
    ) -> None:
        wrong = [one for one in operations if not isinstance(one, Operation)]
        if wrong:
            raise ConfigError(
                f"Augment is made of operations, such as Symmetry(), not of {wrong[0]!r:.80}; "
                "Augment.of takes names"
            )
        if normalise is not None and not isinstance(normalise, Normaliser):
            raise ConfigError(f"normalise must be Macenko or Reinhard, not {normalise!r:.80}")
        if isinstance(standardise, str):
            standardise = Standard(standardise)
        if isinstance(view, bool) or not isinstance(view, int) or not 0 <= view <= MOST_VIEWS:
            raise ConfigError(f"view must be a whole number from 0 to 2**32 - 1, not {view!r:.80}")
        object.__setattr__(self, "operations", operations)
        object.__setattr__(self, "normalise", normalise)
        object.__setattr__(self, "transform", transform)
        object.__setattr__(self, "standardise", standardise)
        object.__setattr__(self, "view", view)

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> Self:
        """The augmentation of a dict as a file has it, or of slideflow's letters.

        ``{"normalise": "macenko", "operations": ["symmetry", {"name": "hed", "sigma": 0.1}],
        "standardise": "imagenet"}``, or ``"xyrjb"``. With letters and "n" in them, the stains are
        augmented around the target of the normaliser, which is then not applied before.

        Args:
            given: operations (a list of names or letters), normalise, standardise (a name, or a
                dict with mean and deviation) and view.

        Raises:
            ConfigError: there is no such name or parameter; says which there are.
        """
        parts = {"operations": given} if isinstance(given, str) else dict(given)
        known = ("operations", "normalise", "standardise", "view")
        if unknown := [key for key in parts if key not in known]:
            raise ConfigError(
                f"an augmentation has no part {unknown[0]!r:.80}; it has {', '.join(known)}"
            )
        said = parts.get("normalise")
        normalise = None if said is None else normaliser_of(said)
        listed = parts.get("operations", ())
        operations = operations_of(listed, normalise)
        if isinstance(listed, str) and "n" in listed:
            normalise = None
        standard = parts.get("standardise")
        if isinstance(standard, Mapping):
            standard = _standard_of(standard)
        view: Any = parts.get("view", 0)
        return cls(*operations, normalise=normalise, standardise=standard, view=view)

    def __call__(self, images: Any, keys: Any) -> Array:
        """Augmented images.

        Args:
            images: numpy's (B, H, W, 3) or a tensor (B, 3, H, W) on any device; uint8, or floats
                from 0 to 1. Or one image, without B. They are left as they are.
            keys: one a row, uint64; a number for one image.

        Returns:
            In the same layout and on the same device, with the dtype that was given or that of
            `standardise`.

        Raises:
            ConfigError: images or keys are of another shape or dtype, or an operation cannot be
                done with images of that size.
        """
        taken = take(images)
        with taken.quiet():
            done = self._augmented(taken, _checked(keys, taken.planes.shape[0]))
        if self.transform is None:
            return self._standardised(done)
        changed = self.transform(done.as_given(done.planes))
        return changed if self.standardise is None else self._standardised(take(changed))

    def row(self, image: Any, key: int | None = None) -> Array:
        """One augmented row: ``tfms=augment.row`` augments in the loaders' processes.

        Args:
            image: (H, W, 3) uint8, or floats from 0 to 1.
            key: of the row; None: drawn from numpy's global generator, which chunkdl seeds for each
                row. A row has then other numbers than by `row_keys`, and always the same ones.

        Returns:
            (H, W, 3), with the dtype that was given or that of `standardise`.

        Raises:
            ConfigError: see `__call__`.
        """
        if key is None:
            key = int(np.random.randint(0, 2**64, dtype=np.uint64))
        return self(image, key)

    def _augmented(self, taken: Taken, keys: Keys) -> Taken:
        planes = taken.planes
        if self.normalise is not None:
            planes = self.normalise.onto(taken.maths, planes, self.normalise.target)
        for number, operation in enumerate(self.operations):
            planes = step(operation, number, self.view, taken.maths, planes, keys)
        return replace(taken, planes=planes)

    def _standardised(self, taken: Taken) -> Array:
        with taken.quiet():
            if self.standardise is None:
                return taken.as_given(taken.planes)
            return self.standardise.of(taken)


def _standard_of(given: Mapping[str, Any]) -> Standard:
    known = ("to", "mean", "deviation")
    if unknown := [key for key in given if key not in known]:
        raise ConfigError(f"a standard has no part {unknown[0]!r:.80}; it has {', '.join(known)}")
    return Standard(
        given.get("to"), tuple(given.get("mean", ())), tuple(given.get("deviation", ()))
    )


def _checked(keys: Any, rows: int) -> Keys:
    found = np.atleast_1d(np.asarray(keys))
    if found.shape != (rows,):
        raise ConfigError(
            f"there must be a key for each of {rows} rows, not {found.size}; row_keys(batch) makes "
            "them"
        )
    whole = found.dtype.kind == "u" or (found.dtype.kind == "i" and (found >= 0).all())
    if not whole:
        raise ConfigError(
            f"keys must be whole numbers from 0 to 2**64 - 1, not {found.dtype} such as {found[0]}"
        )
    return found.astype(np.uint64)
