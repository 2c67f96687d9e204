"""What the training program gives that runs in the workers: its classes, transform and policy.

It travels pickled by value in anonymous memory that only the workers inherit, so classes of a
script without a guard and of a notebook work. The coordinator carries it and never looks into it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chunkdl.errors import HookError, SlideError

if TYPE_CHECKING:
    from chunkdl.dataset.patients import Patient


@dataclass(frozen=True, slots=True)
class UserCode:
    """The user's part of a stream, as far as one kind of worker runs it.

    Attributes:
        patients: of the dataset, in order; empty where no hook class runs.
        bigchunkloader, smallchunkcollector: the two hook classes; None: the built-in ones.
        settings: `const_global_info` for them.
        transform: applied to each SmallChunk in the collectors; None: nothing is.
        policy: chooses the patients, where it is none of the built-in ones.
    """

    patients: tuple[Patient, ...]
    bigchunkloader: type[Any] | None
    smallchunkcollector: type[Any] | None
    settings: Any
    transform: Callable[[Any], Any] | None
    policy: Any

    def shared(self) -> dict[int, int]:
        """Index of each patient by the identity of the object: both sides have it, so that a
        patient never travels."""
        return {id(patient): index for index, patient in enumerate(self.patients)}


def load_user_code(blob: bytes) -> UserCode:
    """The user's part, from what the training process pickled."""
    code: UserCode = pickle.loads(blob)  # noqa: S301 - inherited memory of our own parent
    return code


@contextmanager
def hook_errors(hook: str, patient: str, advice: str = "") -> Iterator[None]:
    """Give an exception of the user's code the name of the hook and of the patient."""
    try:
        yield
    except (HookError, SlideError):
        raise
    except Exception as error:
        kind = type(error).__name__
        message = f"{kind}: {error}; {advice}" if advice else f"{kind}: {error}"
        raise HookError(message, hook=hook, patient=patient, kind=kind) from error
