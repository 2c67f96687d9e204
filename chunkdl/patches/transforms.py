"""How the user's transform is called: seeded from the plan, checked, named in errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from chunkdl.errors import HookError
from chunkdl.patches.same_results import copied, same
from chunkdl.patches.seeded_code import (
    Place,
    SeededCode,
    globals_kept,
    seed_globals,
    seed_torch,
    unseeded_generators,
)
from chunkdl.patches.user_code import hook_errors
from chunkdl.sampling.seeding import Purpose

CHECKED_ROWS = 4
"""Rows of each process that are made twice, to see that they come out the same."""

MOST_LOOKS = 32
"""Times that generators are looked for because numpy made one without a seed."""

Name = tuple[Purpose, int, int, int]
"""Of the random numbers of a row: purpose, ordinal, attempt, call."""

ADVICE = {
    "albumentations": (
        "albumentations takes its image by name and returns a dict: "
        "tfms=lambda image: transform(image=image)['image']"
    ),
    "torchvision": (
        "torchvision's transforms take a PIL image or a tensor, but a SmallChunk is a numpy "
        "array: begin with ToImage() of torchvision v2, or with ToPILImage()"
    ),
    "kornia": (
        "kornia's transforms take a float tensor (B, C, H, W), but a SmallChunk is a uint8 numpy "
        "array (H, W, C): tfms=lambda image: transform(kornia.image_to_tensor(image) / 255)[0]"
    ),
    "monai": (
        "MONAI's transforms take an array (C, H, W), but a SmallChunk is (H, W, C): begin with "
        "EnsureChannelFirst(channel_dim=-1)"
    ),
}
"""What to do when a transform that was given as it is cannot take a SmallChunk, by its library."""


class Transform:
    """A callable of the user on the data of one SmallChunk.

    Every generator that it draws from, the global ones and its own, is set for each call. What
    cannot be set is told: what the search for generators could not seed, and what makes a row come
    out differently when it is made twice.

    Args:
        call: the callable.
        seed: of the stream.
        warn: takes a sentence about rows that will not be the same again.
        checked_rows: rows that are made twice.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        seed: int,
        warn: Callable[[str], None],
        checked_rows: int = CHECKED_ROWS,
    ) -> None:
        self._call = call
        self._seed = seed
        self._warn = warn
        self._left_to_check = checked_rows
        self._rows = 0
        self._unseeded: set[Place] = set()
        self._looks_left = MOST_LOOKS
        self._usual: set[Place] = set()
        self._has_told_late = False
        self.name = str(getattr(call, "__qualname__", type(call).__name__))
        self._code = SeededCode(seed, [(self.name, call)], warn)
        self._package = _package_of(call)
        self._has_v2 = self._code.search.saw("torchvision.transforms.v2")

    def apply(
        self,
        data: Any,
        ordinal: int,
        attempt: int,
        call: int,
        patient: str,
        enter: Callable[[], None],
    ) -> Any:
        """What the transform makes of `data`.

        Args:
            data: of the SmallChunk.
            ordinal, attempt, call: of the SmallChunk, the name of the random numbers.
            patient: its name, for errors.
            enter: called before each call of the user's code.

        Raises:
            HookError: it raised, or returned what can be no row.
        """
        name = Purpose.TRANSFORM, ordinal, attempt, call
        rehearse = partial(self._rehearsed, data, name, patient, enter)
        is_checked = self._left_to_check > 0 and copied(data) is not None
        if is_checked:
            had_torch = "torch" in sys.modules
            first = rehearse()
            # What a first call makes or brings along has been drawn from unseeded.
            brought_torch = not had_torch and "torch" in sys.modules
            if brought_torch:
                seed_torch(self._seed, Purpose.SMALLCHUNK, ordinal, attempt, call)
            if self._code.look_again() or brought_torch:
                first = rehearse()
        enter()
        made = self._called(data, name, patient)
        if is_checked:
            self._compare(first, made)
        self._rows += 1
        if is_checked:
            # What a first call makes to keep, the rehearsal has made.
            self._usual |= self._unseeded
        else:
            self._look_for_late_ones()
        return made

    def _look_for_late_ones(self) -> None:
        """Take in generators that a call made after the rows that are made twice.

        numpy tells where in the code it made one. Most are gone after the call: a place that left
        none behind is usual. Others are looked for at rows 1, 2, 4, 8 and so on.
        """
        is_told = not self._unseeded <= self._usual and self._looks_left > 0
        if not is_told and self._rows & (self._rows - 1):
            return
        self._looks_left -= is_told
        made = self._code.look_again()
        if not made.added:
            self._usual |= self._unseeded
        elif not self._has_told_late:
            self._has_told_late = True
            self._warn(
                f"{self.name} made generators in a call ({', '.join(made.added):.200}); they are "
                "seeded from the next row on, but their earlier random numbers differ from run "
                "to run, and with the number of collectors; make them in __init__"
            )

    def _rehearsed(self, data: Any, name: Name, patient: str, enter: Callable[[], None]) -> Any:
        """What the transform makes of a copy, with nothing changed but in the transform."""
        enter()
        with globals_kept(gpus=True):
            return self._called(copied(data), name, patient)

    def _called(self, data: Any, name: Name, patient: str) -> Any:
        with hook_errors(self.name, patient, ADVICE.get(self._package, "")):
            self._code.seed_own(*name)
            unseeded_generators()
            made = self._call(data)
            self._unseeded = unseeded_generators()
        if made is None:
            raise self._wrong(
                "it returned None, but each SmallChunk must become a row; to leave out "
                "positions, use tissue_threshold, or a collector class whose extract_smallchunk "
                "returns None",
                patient,
            )
        if made is data and self._has_v2 and isinstance(data, np.ndarray):
            self._left_alone(patient)
        return made

    def _left_alone(self, patient: str) -> None:
        """torchvision's v2 silently returns inputs that it does not know, such as arrays."""
        message = f"it did not change the SmallChunk; {ADVICE['torchvision']}"
        if self._package == "torchvision":
            raise self._wrong(message, patient)
        # Something around it may have left it out for this row.
        self._has_v2 = False
        self._warn(f"{self.name}: {message}")

    def _wrong(self, message: str, patient: str) -> HookError:
        return HookError(message, hook=self.name, patient=patient, kind="TypeError")

    def _compare(self, first: Any, second: Any) -> None:
        self._left_to_check -= 1
        if not same(first, second):
            self._left_to_check = 0
            self._warn(
                f"{self.name} made two different rows from one SmallChunk, although every "
                "generator that was found had the same seed: it draws from a source that cannot "
                "be seeded (secrets, uuid4, os.urandom, the clock, a random.Random() made in the "
                "call), or it depends on earlier rows; so its rows differ from run to run, and "
                "with the number of collectors"
            )

    def globals_kept(self) -> Any:
        """Afterwards the generators of this process stand where they stood, own ones included."""
        return globals_kept(self._code.own, gpus=False)


class TransformHere:
    """The user's transform in the training process, whose random numbers stay its own.

    A row gets the numbers that it would get in a collector. The generators of the training, those
    that the transform shares with it included, stand afterwards where they stood before; GPUs' are
    not touched, and neither is what only a method can seed (albumentations, MONAI) put back. Rows
    are made once each: one process makes all, in order.

    Args:
        call: the callable.
        seed: of the stream.
        warn: takes a sentence about rows that will not be the same again.
    """

    def __init__(self, call: Callable[[Any], Any], seed: int, warn: Callable[[str], None]) -> None:
        self._seed = seed
        self._transform = Transform(call, seed, warn, checked_rows=0)

    def apply(
        self,
        rows: Iterable[Any],
        ordinals: Iterable[int],
        calls: Iterable[int],
        patients: Iterable[str],
    ) -> list[Any]:
        """What the transform makes of the data of each SmallChunk.

        Args:
            rows: the data.
            ordinals, calls: columns "bigchunk" and "call" of the batch.
            patients: their names, for errors.

        Raises:
            HookError: it raised, or returned what can be no row.
        """
        made = []
        with self._transform.globals_kept():
            for data, ordinal, call, patient in zip(rows, ordinals, calls, patients, strict=True):
                seed_globals(self._seed, Purpose.SMALLCHUNK, ordinal, 0, call, gpus=False)
                made.append(self._transform.apply(data, ordinal, 0, call, patient, _nothing))
        return made


def _nothing() -> None:
    """There is no flight recorder in the training process."""


def _package_of(call: Any) -> str:
    """The library whose transform was given as it is."""
    while isinstance(call, partial):
        call = call.func
    call = getattr(call, "__self__", call)
    return type(call).__module__.partition(".")[0]
