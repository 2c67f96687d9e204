"""Who is sampled: patients with their records (files), and where a dataset comes from.

`Record`, `Patient` and `Dataset` keep PyDmed's names, positional order and meaning, so that its
users' code builds them unchanged. A patient is the unit of scheduling and of train/test splits.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import total_ordering
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from chunkdl.dataset.labels import plain
from chunkdl.errors import DatasetError
from chunkdl.slides.address import parse_address
from chunkdl.slides.suffixes import SLIDE_SUFFIXES as SLIDE_SUFFIXES

if TYPE_CHECKING:
    from chunkdl.dataset.namings.naming import Naming
    from chunkdl.dataset.tables import Table
    from chunkdl.survey.survey import Survey

# What makes a dataset of files and tables is imported where one is made: a worker, which is given
# its patients, needs none of it, and it takes longer to import than all that is here.

StrPath = str | os.PathLike[str]


@dataclass(slots=True, eq=False)
class Record:
    """One file of a patient.

    Attributes:
        rootdir: folder of the dataset; PyDmed's users end it with "/".
        relativedir: the file, relative to `rootdir`. To choose one of several slides in a file,
            append its number, as in "slide.tif#image=1".
        dict_infos: any facts. chunkdl reads "slide" (bool: whether this record is a slide,
            whatever its name), "mpp" (microns per pixel of level 0, a float or (x, y), instead of
            what the file says) and "tissue_mask" (a 2-D bool or uint8 array over the whole slide,
            or the path of an image file of one, or of a file of outlines, such as GeoJSON).
        labels: of the slide. Each is a column of a batch, in which a row has the value of its
            slide. If the patient has a label of the same name, the label of the slide has priority.
            If the slide has no such label or a missing value (None, NaN, NaT, NA), the row has the
            value of the patient, or else a missing value.
    """

    rootdir: StrPath
    relativedir: StrPath
    dict_infos: dict[str, object] = field(default_factory=dict)
    labels: dict[str, object] = field(default_factory=dict)

    def __setstate__(self, state: Any) -> None:
        """From a pickle: of this class, or of PyDmed's, which has the same attributes."""
        for name, value in (state[1] if isinstance(state, tuple) else state).items():
            setattr(self, name, value)

    @property
    def path(self) -> str:
        """The slide: `rootdir` and `relativedir` as `os.path.join` joins them."""
        return os.path.join(self.rootdir, self.relativedir)

    @property
    def is_slide(self) -> bool:
        """Whether the record is a slide, by `dict_infos["slide"]`, or else by the file name."""
        said = self.dict_infos.get("slide")
        if isinstance(said, bool):
            return said
        return parse_address(self.path).path.lower().endswith(SLIDE_SUFFIXES)


@total_ordering
class Patient:
    """The unit of scheduling: an id, records and labels.

    Patients are equal, ordered and hashed by their id alone.

    Attributes:
        int_uniqueid: unique within a dataset.
        dict_records: keys are chosen by the user; values of type `Record` are files, all other
            values are labels.
        name: shown in logs and tables; by default the id as text.
    """

    def __init__(
        self, int_uniqueid: int, dict_records: dict[str, object], *, name: str | None = None
    ) -> None:
        try:
            self.int_uniqueid = operator.index(int_uniqueid)
        except TypeError as error:
            raise DatasetError(
                f"the id of a patient must be an int, not {int_uniqueid!r}"
            ) from error
        self.dict_records = dict_records
        self.name = str(self.int_uniqueid) if name is None else name

    def __setstate__(self, state: dict[str, Any]) -> None:
        """From a pickle: of this class, or of PyDmed's, whose patients have no name."""
        self.__dict__.update({"name": str(state["int_uniqueid"]), **state})

    @property
    def slides(self) -> tuple[Record, ...]:
        """The records that are slides, in the order of `dict_records`."""
        records = (value for value in self.dict_records.values() if isinstance(value, Record))
        return tuple(record for record in records if record.is_slide)

    @property
    def labels(self) -> Mapping[str, object]:
        """Everything in `dict_records` that is not a record, such as the labels of a manifest.

        Each is a column of a batch; `docs/concepts.md` says how values become columns. The labels
        of a single slide are in `Record.labels`.
        """
        return {
            key: value for key, value in self.dict_records.items() if not isinstance(value, Record)
        }

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Patient):
            return NotImplemented
        return self.int_uniqueid == other.int_uniqueid

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Patient):
            return NotImplemented
        return self.int_uniqueid < other.int_uniqueid

    def __hash__(self) -> int:
        return hash(self.int_uniqueid)

    def __repr__(self) -> str:
        return f"Patient({self.int_uniqueid}, name={self.name!r}, slides={len(self.slides)})"


class Dataset(Sequence[Patient]):
    """A list of patients with a name, in a fixed order.

    Args:
        str_dsname: the name.
        list_patients: patients with unique ids; may be empty.

    Raises:
        DatasetError: an element is not a `Patient`, or an id comes twice.
    """

    def __init__(self, str_dsname: str, list_patients: Iterable[Patient]) -> None:
        self.str_dsname = str_dsname
        self.list_patients = list(list_patients)
        seen: dict[int, Patient] = {}
        for patient in self.list_patients:
            if not isinstance(patient, Patient):
                raise DatasetError(f"dataset {str_dsname!r}: {patient!r} is not a Patient")
            if patient.int_uniqueid in seen:
                raise DatasetError(
                    f"dataset {str_dsname!r}: {seen[patient.int_uniqueid]!r} and {patient!r} have "
                    f"the same id; give each patient its own"
                )
            seen[patient.int_uniqueid] = patient

    @classmethod
    def from_slides(
        cls,
        slides: StrPath | Iterable[StrPath],
        *,
        name: str | None = None,
        naming: Naming | str | Mapping[str, Any] | None = None,
        misfits: Literal["error", "leave_out"] = "error",
    ) -> Self:
        """One patient per slide, in the order of the paths; or as the file names say.

        Args:
            slides: a slide file, a folder, or a list of these. To choose one of several slides in
                a file, append its number ("slide.tif#image=1"). A folder is searched with all its
                subfolders, also through links but without hidden names, for files that end with
                one of `SLIDE_SUFFIXES`, sorted by path. Links to missing files are left out with a
                warning. In a folder of DICOM files, each SeriesInstanceUID is one slide; its path
                is the first file of the series that is an image of the slide.
            name: of the dataset; by default the name of the folder if one folder is given, else
                "slides".
            naming: whose slide a file is, and its labels: `Tcga`, `Cptac`, `Camelyon16`,
                `Camelyon17`, `Panda`, `Gtex`, `Idc`, `NamePattern`, `NameTable`, an object of your
                own with the method `read`, or a name such as "tcga" as in a configuration file.
            misfits: with a naming, what becomes of slides whose names do not fit: an error, or they
                are left out with one warning.

        Raises:
            DatasetError: a path is not there, comes twice, or no slide was found; a name does not
                fit, or slides of a patient contradict each other.
        """
        from chunkdl.dataset.found_slides import found_slides
        from chunkdl.dataset.namings.by_name import naming_of
        from chunkdl.dataset.namings.naming import named_patients, patients_of_slides

        given = [slides] if isinstance(slides, str | os.PathLike) else list(slides)
        paths = [os.path.abspath(path) for path in given]
        found = found_slides(paths)
        if name is None:
            one_folder = len(paths) == 1 and os.path.isdir(paths[0])
            name = os.path.basename(paths[0]) if one_folder else "slides"
        if naming is None:
            named = patients_of_slides(found)
        else:
            named = named_patients(found, naming_of(naming), misfits)
        patients = []
        for index, entry in enumerate(named):
            records: dict[str, object] = {}
            for number, (root, relative, labels) in enumerate(entry.slides, start=1):
                key = "slide" if number == 1 else f"slide:{number}"
                records[key] = Record(root, relative, {"slide": True}, labels)
            patients.append(Patient(index, {**records, **entry.labels}, name=entry.name))
        return cls(name, patients)

    @classmethod
    def from_csv(cls, path: StrPath, *, root: StrPath | None = None) -> Self:
        """The dataset of a manifest: a UTF-8 text with one row per slide.

        Cells are separated by commas, semicolons or tabs. The columns are those of `from_table`.
        The type of a label column is found from all its cells: booleans ("True", "false"), else
        integers, else floats, else lists of one of these ("[0, 1, 1]", or "[0 1 1]" as numpy prints
        it), else text. Numbers with leading zeros or with more than 18 digits are text, so that
        codes stay unchanged. A cell is missing if it is empty, "NA", "N/A", "nan", "<NA>" or
        "null", and in a column of numbers also if it is "None".

        Args:
            path: the manifest; its name without suffix becomes the dataset's name.
            root: folder that its paths are relative to; by default the folder of the manifest.

        Raises:
            DatasetError: the manifest cannot be used; names the file and up to ten bad rows
                (the header is row 1).
        """
        from chunkdl.dataset.manifest import NEEDED
        from chunkdl.dataset.tables import read_text

        return cls._of(read_text(os.fspath(path), NEEDED), path, root, None)

    @classmethod
    def from_table(
        cls, source: Any, *, root: StrPath | None = None, name: str | None = None
    ) -> Self:
        """The dataset of a table with one row per slide.

        Required columns: `patient` (any text or number; rows with equal values belong to one
        patient, and ids count from 0 in the order of appearance) and `slide` (a file, or a folder
        with the DICOM files of one slide). Optional columns, which may have empty cells: `image`
        (which of several slides in the file, counted from 0), `mpp` (0.25, or "0.25 0.26" for x
        and y) and `tissue_mask` (the path of an image file or of outlines). The names may have
        capitals. Every other column is a label. It is a label of the patient if all rows of each
        patient agree, else of the slide; the log says so. A named pandas index is a column too, but
        counts once if there is an equal column of that name; an index without a name is ignored.

        Cells keep their types, except in text files (see `from_csv`). NaN, NaT and NA are missing.
        Dates become text in ISO 8601. Categories of text, numbers or booleans become these values;
        categories of other objects, such as the intervals of `pandas.cut`, become text. A column of
        integers in which pandas had missing values holds floats, and stays so.

        Args:
            source: the path of a Parquet file (".parquet", ".pq"; needs ``chunkdl[tables]``) or of
                a text file as for `from_csv`; a pandas or polars DataFrame; a pyarrow table; a list
                of dicts, or a dict of columns.
            root: folder that the paths are relative to; by default the folder of the file, or the
                working folder if the source is not a file.
            name: of the dataset; by default the file name without suffix, or "table".

        Raises:
            DatasetError: the table cannot be used; names it and up to ten bad rows (counted from
                0, except in text files).
        """
        from chunkdl.dataset.manifest import NEEDED
        from chunkdl.dataset.tables import read_table

        return cls._of(read_table(source, NEEDED), source, root, name)

    @classmethod
    def _of(cls, table: Table, source: Any, root: StrPath | None, name: str | None) -> Self:
        from chunkdl.dataset.manifest import patients_of

        file = os.fspath(source) if isinstance(source, str | os.PathLike) else None
        if name is None:
            name = "table" if file is None else os.path.splitext(os.path.basename(file))[0]
        if root is None:
            root = os.curdir if file is None else os.path.dirname(file)
        base = os.path.abspath(root)
        patients = []
        for index, entry in enumerate(patients_of(table, base)):
            records: dict[str, object] = {}
            for number, slide in enumerate(entry.slides, start=1):
                # PyDmed's users add the two strings, which must come out right for both kinds.
                rootdir = "" if os.path.isabs(slide.path) else os.path.join(base, "")
                key = "slide" if number == 1 else f"slide:{number}"
                infos = {"slide": True, **slide.infos}
                records[key] = Record(rootdir, slide.path, infos, slide.labels)
            patients.append(Patient(index, {**records, **entry.labels}, name=entry.name))
        return cls(name, patients)

    def with_labels(
        self,
        source: Any,
        *,
        patient: str | None = None,
        slide: str | None = None,
        columns: Iterable[str] | None = None,
        missing: Literal["error", "none"] = "error",
    ) -> Self:
        """The same patients with further labels, from a table such as a clinical one.

        Args:
            source: as for `from_table`: a file, a DataFrame, rows. Rows of others are ignored.
            patient: the column with the names of patients; all its rows of one patient must agree.
                The other columns become labels of patients.
            slide: instead, the column with the names of slide files, with or without suffix. The
                other columns become labels of slides.
            columns: that become labels; by default all others.
            missing: what becomes of a patient or slide without a row: an error, or its labels are
                None. That none has a row is always an error.

        Raises:
            DatasetError: the table cannot be used, rows are missing or contradict each other, or a
                label is there already; names up to ten.
        """
        from chunkdl.dataset.joined_labels import joined_labels, names_of_slide
        from chunkdl.dataset.tables import read_table

        if (patient is None) == (slide is None):
            raise DatasetError(
                "give patient= or slide=, the column that has the names of patients or of slides"
            )
        column = str(slide if patient is None else patient)
        table = read_table(source, (column.lower(),))
        records = {record.path: record for one in self for record in one.slides}
        if patient is None:
            names = {path: names_of_slide(path) for path in records}
        else:
            names = {one.name: (one.name,) for one in self}
        known = {key for one in self for key in one.dict_records}
        known.update(label for record in records.values() for label in record.labels)
        wanted = None if columns is None else list(columns)
        found = joined_labels(table, column, wanted, names, known, missing)
        patients = []
        for one in self:
            entries = {
                key: replace(value, labels={**value.labels, **found[value.path]})
                if patient is None and isinstance(value, Record) and value.is_slide
                else value
                for key, value in one.dict_records.items()
            }
            more = {} if patient is None else found[one.name]
            patients.append(Patient(one.int_uniqueid, {**entries, **more}, name=one.name))
        return type(self)(self.str_dsname, patients)

    def survey(
        self,
        *,
        processes: int | None = None,
        slide_timeout: float = 600.0,
        progress: bool = True,
        **settings: Any,
    ) -> Survey:
        """Look at every slide: what is in it, and what is wrong with it.

        Processes of their own do it, so a slide whose library crashes or hangs is reported and ends
        nothing. What a look has found is kept at once beside the tissue masks, until the file, its
        mask, its annotations, the settings or chunkdl change. A slide that could not be looked at
        as a whole is looked at again the next time. Streams use the tissue masks and the facts of
        headers that are found here.

        Each process takes as much memory as a loader without its slots, this one about 10 KiB a
        slide.

        Args:
            processes: that look at slides at the same time; by default one a core, at most 16.
            slide_timeout: for one slide, seconds; then its process is ended and replaced.
            progress: write to stderr how far it is: a line in a terminal, else one line a minute.
            **settings: of a stream, as of `LightDL`: `smallchunk_size`, `mpp`, `level`,
                `downsample`, `magnification`, `resolution_policy`, `max_relative_deviation`,
                `tissue`, `tissue_threshold`, `pixel_filter`, `annotations`, `annotation_reading`,
                `reader`, `channels`, `window`, `icc`, `mask_cache`.

        Raises:
            AnnotationError: it is not clear which file of annotations belongs to which slide.
            ConfigError: a setting is wrong.
            DatasetError: there are no patients, or one has no slides.
            WorkerDied: the processes cannot begin.
        """
        # By its public name: what makes surveys lies above datasets.
        from chunkdl import Survey

        return Survey.of(
            self, processes=processes, slide_timeout=slide_timeout, progress=progress, **settings
        )

    def classes(self, label: str) -> dict[str, int]:
        """A number from 0 for each text that a label has, in alphabetical order.

        Make it once, for the whole dataset, before you split it. Then
        ``torch.tensor([classes[text] for text in batch[label]])`` are the targets.

        Args:
            label: of patients or slides; missing values are no class.

        Raises:
            DatasetError: there is no such label, or it has values that are no text.
        """
        values = [
            plain(labels[label])
            for patient in self
            for labels in (patient.labels, *(record.labels for record in patient.slides))
            if label in labels
        ]
        known = [value for value in values if value is not None]
        other = next((value for value in known if not isinstance(value, str)), None)
        if not known or other is not None:
            found = (
                "no patient and no slide has this label" if not known else f"{other!r} is not text"
            )
            raise DatasetError(f"dataset {self.str_dsname!r}: {label!r} has no classes: {found}")
        return {text: number for number, text in enumerate(sorted(set(known)))}

    def __len__(self) -> int:
        return len(self.list_patients)

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.list_patients)

    @overload
    def __getitem__(self, index: int) -> Patient: ...
    @overload
    def __getitem__(self, index: slice) -> list[Patient]: ...
    def __getitem__(self, index: int | slice) -> Patient | list[Patient]:
        return self.list_patients[index]

    def __repr__(self) -> str:
        return f"Dataset({self.str_dsname!r}, {len(self)} patients)"
