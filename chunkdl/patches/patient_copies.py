"""The patient of one load: a copy of its own, and what a hook has changed in it.

A hook may change its patient: take a mask out so that it does not travel, note a fact. As in a
process of its own, the next load of that patient sees nothing of it. So each load gets a copy, and
the patients that the worker was started with stay as they came.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from chunkdl.dataset.patients import Patient
from chunkdl.errors import PackingError
from chunkdl.transport.memory.packing import pickled_apart

LARGE_ARRAY_BYTES = 256 * 1024
"""Arrays up to this size are copied for each load. Larger ones are shared by the loads of the
native classes, read-only: a hook that writes into one is told so, and none takes memory again."""
_MOST_DIGESTS = 16

_IMMUTABLE = (type(None), bool, int, float, str, bytes)


@dataclass(frozen=True, slots=True)
class Changes:
    """How a patient that a hook returned differs from the dataset's.

    Attributes:
        removed: keys that are no longer in `dict_records`.
        records: values of `dict_records` that are new or others.
        attributes: the patient's other attributes that are new or others.
        whole: where it is not a variant of the dataset's patient at all: what was returned, in a
            list.
    """

    removed: tuple[Any, ...] = ()
    records: dict[Any, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    whole: list[Any] = field(default_factory=list)

    def applied_to(self, patient: Patient) -> Any:
        """What the hook returned, made from the dataset's patient, which stays as it is."""
        if self.whole:
            return self.whole[0]
        changed = copy.copy(patient)
        changed.__dict__.update(self.attributes)
        kept = {key: it for key, it in patient.dict_records.items() if key not in self.removed}
        changed.dict_records = {**kept, **self.records}
        return changed


class PatientCopies:
    """Makes the copies of a worker's patients.

    Args:
        patients: of the dataset.
        all_arrays: copy arrays of any size, so that a hook may write into each.
    """

    def __init__(self, patients: Sequence[Patient], *, all_arrays: bool) -> None:
        self.patients = patients
        self._all_arrays = all_arrays
        self._pickled: dict[int, tuple[bytes, list[memoryview]]] = {}
        self._prints: dict[int, _Prints] = {}
        self._digests = _Digests()

    def fresh(self, index: int) -> Patient:
        """A copy of a patient.

        Raises:
            PackingError: it cannot be pickled in this process.
        """
        if index not in self._pickled:
            stream, buffers = pickled_apart(self.patients[index])
            self._pickled[index] = stream, [buffer.raw() for buffer in buffers]
        stream, arrays = self._pickled[index]
        patient: Patient = pickle.loads(stream, buffers=map(self._memory, arrays))  # noqa: S301
        return patient

    def _memory(self, buffer: memoryview) -> bytearray | memoryview:
        if self._all_arrays or buffer.nbytes <= LARGE_ARRAY_BYTES:
            return bytearray(buffer)
        return buffer.toreadonly()

    def changes(self, index: int, returned: Any) -> Changes | None:
        """How what a hook returned as its patient differs from the dataset's; None: in nothing.

        The content of an array is looked at once, when it is first seen.

        Raises:
            PackingError: something in it cannot be pickled.
        """
        if index not in self._prints:
            # Of a copy: what has been through a pickle once is pickled alike from then on.
            self._prints[index] = self._prints_of(self.fresh(index))
        then = self._prints[index]
        if type(returned) is not then.kind or not isinstance(returned, Patient):
            return Changes(whole=[returned])
        if returned.int_uniqueid != then.uniqueid:
            return Changes(whole=[returned])
        now = self._prints_of(returned)
        if now == then:
            return None
        return Changes(
            removed=tuple(key for key in then.records if key not in now.records),
            records={
                key: returned.dict_records[key]
                for key, seen in now.records.items()
                if key not in then.records or then.records[key] != seen
            },
            attributes={
                name: vars(returned)[name]
                for name, seen in now.attributes.items()
                if then.attributes.get(name) != seen
            },
        )

    def is_unchanged(self, index: int, patient: Patient) -> bool:
        """Whether a hook has left its patient as it was."""
        try:
            return self.changes(index, patient) is None
        except PackingError:
            # It has put something in that belongs to its process, such as an open slide.
            return False

    def _prints_of(self, patient: Patient) -> _Prints:
        return _Prints(
            type(patient),
            patient.int_uniqueid,
            {key: self._print(value) for key, value in patient.dict_records.items()},
            {
                name: self._print(value)
                for name, value in vars(patient).items()
                if name != "dict_records"
            },
        )

    def _print(self, value: Any) -> Hashable:
        """Equal for equal values."""
        if type(value) in _IMMUTABLE:
            return type(value), value
        return pickled_apart(value, self._digests.of)[0]


@dataclass(frozen=True, slots=True)
class _Prints:
    kind: type
    uniqueid: int
    records: dict[Any, Hashable]
    attributes: dict[str, Hashable]


class _Digests:
    """Of the arrays that were looked at last, which stay alive so that none takes their place."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[npt.NDArray[Any], object]] = OrderedDict()

    def of(self, array: npt.NDArray[Any]) -> object:
        """Equal for equal arrays; of a large one as it was when first seen."""
        if array.nbytes <= LARGE_ARRAY_BYTES:
            return _digest(array)
        if id(array) not in self._known:
            self._known[id(array)] = array, _digest(array)
            if len(self._known) > _MOST_DIGESTS:
                self._known.popitem(last=False)
        return self._known[id(array)][1]


def _digest(array: npt.NDArray[Any]) -> object:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return array.dtype.str, array.shape, hashlib.blake2b(content.data, digest_size=16).digest()


class PatientsOfLoad(Sequence[Patient]):
    """The dataset's patients as one load sees them: copies, made when they are asked for."""

    def __init__(self, copies: PatientCopies) -> None:
        self._copies = copies
        self._made: dict[int, Patient] = {}

    def __len__(self) -> int:
        return len(self._copies.patients)

    def __iter__(self) -> Iterator[Patient]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Patient: ...

    @overload
    def __getitem__(self, index: slice) -> list[Patient]: ...

    def __getitem__(self, index: int | slice) -> Patient | list[Patient]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if index not in self._made:
            self._made[index] = self._copies.fresh(index)
        return self._made[index]
