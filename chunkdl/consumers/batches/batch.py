"""A batch as the user sees it: columns of arrays, one entry a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload

from chunkdl.consumers.batches.diversity import Diversity, Footprints
from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError, StateError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.transport.row_format import OF_ANNOTATIONS


class Stand(Protocol):
    """A place in a stream."""

    def to_dict(self) -> dict[str, Any]:
        """The state there: small, plain data."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a batch comes from, which its columns do not say.

    Attributes:
        number: of the batch in its stream, or in its pass; of a shared stream that went on with
            another global batch, how often its rows fit into those before it.
        patients: of its rows.
        stands: where the stream stands behind it, with `to_dict`; None: nobody knows.
        row_columns: that make the data of a SmallChunk.
        footprints: of its rows, of each service from which they come.
    """

    number: int
    patients: list[Patient]
    stands: Stand | None = None
    row_columns: tuple[str, ...] = ("image",)
    footprints: tuple[Footprints, ...] = ()


@dataclass(frozen=True, slots=True)
class Flat:
    """What a batch is beside its columns; batches of the same columns are trees of one shape."""

    names: tuple[str, ...]
    origin: Origin | None = field(compare=False)


class Batch(MutableMapping[str, Any]):
    """The columns of one batch; row i of all columns belongs to the same SmallChunk.

    ``image`` is a tensor (B, 3, H, W), channels_last. These are tensors of shape (B,): ``x`` and
    ``y``, the top-left corner in level-0 pixels; ``level``, the pyramid level that was read;
    ``mpp``, microns per pixel (NaN where unknown); ``tissue_fraction``, the share of tissue;
    ``bigchunk``, the ordinal of its BigChunk; and ``call``, its number in that BigChunk. ``slide``
    and ``patient`` are lists of paths and names; ``slide_index`` and ``patient_index`` (int64, -1
    for no slide) are their indices in ``loader.tables``.

    Every label is a column under its own name. A single label is also the column ``label``. It is a
    tensor if all its values are numbers or lists of numbers of one shape (bool, int64 or float64),
    else a list. A missing value is NaN, which makes the column float64, or None among text. A row
    has the label of its slide, or else of its patient.

    With transforms and classes of the user, ``image`` has the rows that they make. If a row is a
    dict of arrays and numbers, each entry is a column of its name. If a row is anything else,
    ``data`` is a list of these objects. With the user's classes, the numeric columns come from
    their info dicts (-1 or NaN if an entry is missing), and ``info_smallchunk`` and
    ``info_bigchunk`` are lists of these dicts.

    With ``arrays="numpy"`` tensors are numpy arrays, and ``image`` is (B, H, W, 3).

    Columns can be set and deleted as in a dict. If a framework builds a new batch from a dict of
    columns, it keeps number, patients and state as long as it has one of the integer columns.

    Args:
        columns: by name.
        patients, number, stands, row_columns, footprints: see `Origin`; without patients, they are
            taken from the columns.
    """

    def __init__(
        self,
        columns: Mapping[str, Any],
        patients: list[Patient] | None = None,
        number: int = -1,
        stands: Stand | None = None,
        row_columns: tuple[str, ...] = ("image",),
        footprints: tuple[Footprints, ...] = (),
    ) -> None:
        self._columns = columns
        self._changed: dict[str, Any] = {}
        self._removed: frozenset[str] = frozenset()
        self.untransformed: Sequence[Any] | None = None
        """Data of the SmallChunks, where `tfms` has made rows of them in this process."""
        known = patients is not None
        origin = Origin(number, patients or [], stands, row_columns, footprints)
        self._origin = origin if known else _origin_of(columns)

    @property
    def number(self) -> int:
        """Number of the batch in its stream, or in its pass; -1: it was made of columns alone."""
        return -1 if self._origin is None else self._origin.number

    @property
    def patients(self) -> list[Patient]:
        """The patient of each row; empty: it was made of columns alone."""
        return [] if self._origin is None else self._origin.patients

    @property
    def row_columns(self) -> tuple[str, ...]:
        """The columns that make the data of a SmallChunk: "image", or what a row was made of."""
        return ("image",) if self._origin is None else self._origin.row_columns

    @property
    def state(self) -> dict[str, Any]:
        """The state of the loader after this batch: `load_state_dict` goes on behind it.

        Raises:
            StateError: the batch was made of columns alone.
        """
        stands = None if self._origin is None else self._origin.stands
        if stands is None:
            raise StateError(
                "this batch was put together from columns and does not know its place in a "
                "stream; take loader.state_dict(), or the state of the batch that came from it"
            )
        return stands.to_dict()

    @property
    def diversity(self) -> Diversity:
        """How different its rows are; computed when it is asked for.

        Raises:
            StateError: the batch was made of columns alone.
        """
        if not self.footprints:
            raise StateError(
                "this batch was put together from columns and does not know what its rows show of "
                "which BigChunks; ask the batch that came from the loader, or loader.stats()"
            )
        return Diversity.together([one.diversity for one in self.footprints])

    @property
    def footprints(self) -> tuple[Footprints, ...]:
        """What its rows show, of each service from which they come."""
        return () if self._origin is None else self._origin.footprints

    def data_of(self, row: int) -> Any:
        """The data of a SmallChunk: its row of the only such column, or a dict of its rows."""
        names = self.row_columns
        if names in (("image",), ("data",)):
            return self[names[0]][row]
        return {name: self[name][row] for name in names}

    def replace_rows(self, columns: Mapping[str, Any]) -> None:
        """Have the SmallChunks be made of these columns.

        Raises:
            ConfigError: the batch has other columns of these names.
        """
        for name in self.row_columns:
            self.pop(name, None)
        for name, values in columns.items():
            if name in self:
                raise ConfigError(
                    f"tfms makes a column {name!r}, and batches have one of that name; give it "
                    "another"
                )
            self[name] = values
        if self._origin is not None:
            self._origin = replace(self._origin, row_columns=tuple(columns))

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The batch with all its tensors on a device of torch; what is not a tensor stays.

        Args:
            device: as `torch.Tensor.to` takes it.
            non_blocking: do not wait for copies out of page-locked memory.
        """
        moved = {
            name: value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value
            for name, value in self.items()
        }
        return self._with(moved)

    def _with(self, columns: Mapping[str, Any]) -> Batch:
        """Other columns of the same origin."""
        same = Batch(columns, [])
        same._origin = self._origin
        return same

    def flattened(self) -> tuple[list[Any], Flat]:
        """Its columns, and what is needed to put them together again; for trees of containers."""
        return list(self.values()), Flat(tuple(self), self._origin)

    @classmethod
    def of_flattened(cls, columns: Iterable[Any], flat: Flat) -> Batch:
        """The batch that was `flattened`."""
        batch = cls(dict(zip(flat.names, columns, strict=True)), [])
        batch._origin = flat.origin
        return batch

    def __getitem__(self, column: str) -> Any:
        if column in self._changed:
            return self._changed[column]
        if column in self._removed:
            raise KeyError(column)
        value = self._columns[column]
        if self._origin is not None:
            _mark(value, self._origin)
        return value

    def __setitem__(self, column: str, values: Any) -> None:
        self._changed[column] = values
        self._removed -= {column}

    def __delitem__(self, column: str) -> None:
        if column not in self:
            raise KeyError(column)
        self._changed.pop(column, None)
        self._removed |= {column}

    def __iter__(self) -> Iterator[str]:
        given = [name for name in self._columns if name not in self._removed]
        yield from given
        yield from (name for name in self._changed if name not in given)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, column: object) -> bool:
        given = column in self._columns and column not in self._removed
        return given or column in self._changed

    def __copy__(self) -> Batch:
        same = self._with(self._columns)
        same._changed, same._removed = dict(self._changed), self._removed
        return same

    def __reduce__(self) -> tuple[Any, ...]:
        # The columns that are made when they are asked for refer to tables of the whole dataset.
        if (origin := self._origin) is None:
            return Batch, (dict(self),)
        stands = None if origin.stands is None else Told(origin.stands.to_dict())
        told = origin.patients, origin.number, stands, origin.row_columns, origin.footprints
        return Batch, (dict(self), *told)

    def __repr__(self) -> str:
        return f"Batch(number={self.number}, rows={len(self.patients)}, columns={list(self)})"


@dataclass(frozen=True, slots=True)
class Told:
    """A state that was asked for."""

    state: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The state."""
        return self.state


_MARK = "_chunkdl_origin"


def _mark(value: Any, origin: Origin) -> None:
    """Have a column remember its batch, where it is an object that can: frameworks hand the same
    tensors on in containers of their own making."""
    if type(value).__module__ == "torch":
        setattr(value, _MARK, origin)


def _origin_of(columns: Mapping[str, Any]) -> Origin | None:
    """The origin that all marked columns agree on."""
    found = {id(o): o for value in columns.values() if (o := getattr(value, _MARK, None))}
    return next(iter(found.values())) if len(found) == 1 else None


class SmallChunks(Sequence[SmallChunk]):
    """The SmallChunks of a batch, made when they are looked at; their pixels are in the batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch.patients)

    @overload
    def __getitem__(self, row: int) -> SmallChunk: ...

    @overload
    def __getitem__(self, row: slice) -> list[SmallChunk]: ...

    def __getitem__(self, row: int | slice) -> SmallChunk | list[SmallChunk]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of a batch of {len(self)}")
        batch = self._batch
        if "info_smallchunk" in batch:
            small, big = batch["info_smallchunk"][row], batch["info_bigchunk"][row]
            return SmallChunk(batch.data_of(row), small, big, batch.patients[row])
        data = None if batch.untransformed is None else batch.untransformed[row]
        small = {name: batch[name][row].item() for name in _OF_SMALLCHUNK}
        told = {name: batch[name][row] for name in OF_ANNOTATIONS if name in batch}
        small.update({name: _own(value) for name, value in told.items()})
        slide = "slide" if "slide" in batch else "slide_index"
        big = {slide: batch[slide][row], "bigchunk": batch["bigchunk"][row].item()}
        return SmallChunk(data, small, big, batch.patients[row])


def _own(value: Any) -> Any:
    """A number, or a copy: facts of a SmallChunk are kept longer than the memory of its batch."""
    if not value.shape:
        return value.item()
    return value.clone() if hasattr(value, "clone") else value.copy()


_OF_SMALLCHUNK = ("x", "y", "level", "mpp", "tissue_fraction", "call")
