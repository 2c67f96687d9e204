"""PyDmed's ways to make, split and balance datasets, and the small functions beside them."""

from __future__ import annotations

import math
import os
import queue
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.dataset import patients
from chunkdl.dataset.patients import Patient, Record
from chunkdl.errors import ConfigError, DatasetError
from chunkdl.pydmed.utils.data import KEY_OF_ORIGINAL_PATIENT, Dataset
from chunkdl.pydmed.utils.minimath import lcm, multiminority, multimode
from chunkdl.pydmed.utils.multiproc import (
    poplast_from_queue,
    set_nicemax,
    terminaterecursively,
)

REPOSITORY = Path(__file__).parents[2]


def labelled(*labels: Any) -> Dataset:
    """A dataset with one patient per label, ids from 0."""
    return Dataset("set", [Patient(i, {"label": label}) for i, label in enumerate(labels)])


def label_of(patient: Patient) -> Any:
    return patient.dict_records["label"]


def ids(dataset: patients.Dataset) -> list[int]:
    return [patient.int_uniqueid for patient in dataset]


@st.composite
def percentages(draw: st.DrawFn) -> list[int]:
    """Whole numbers that sum to 100."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=4)))
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, 100], strict=True)]


# ---- Splits.


def test_a_split_keeps_the_patients_that_rounding_leaves_over() -> None:
    """PyDmed made 4 + 1 + 1 of these 7; the last part takes the one that it lost."""
    parts = Dataset.splits_from(labelled(*"abcdefg"), [60, 20, 20])
    assert [len(part) for part in parts] == [4, 1, 2]


@given(count=st.integers(0, 40), shares=percentages(), seed=st.integers(0, 99))
def test_a_split_has_every_patient_once(count: int, shares: list[int], seed: int) -> None:
    """In parts of the sizes that were asked for, rounded down but for the last."""
    parts = Dataset.splits_from(labelled(*range(count)), shares, seed=seed)
    assert sorted(i for part in parts for i in ids(part)) == list(range(count))
    assert [len(part) for part in parts[:-1]] == [math.floor(s * count / 100) for s in shares[:-1]]
    assert len(parts) == len(shares)
    assert {part.str_dsname for part in parts} == {"set"}


@pytest.mark.parametrize("seed", [None, 4])
def test_no_split_changes_the_dataset_it_is_given(seed: int | None) -> None:
    """PyDmed shuffled the dataset's own list; here the same dataset can be split again."""
    dataset = labelled(*[0, 1] * 10)
    Dataset.splits_from(dataset, [50, 50], seed=seed)
    Dataset.labelbalanced_splits_from(dataset, [50, 50], label_of, seed=seed)
    assert ids(dataset) == list(range(20))


def test_without_a_seed_splits_follow_the_global_random_numbers() -> None:
    """As PyDmed's programs expect: after `random.seed` the first parts are those of PyDmed."""
    random.seed(11)
    shuffled = list(range(10))
    random.shuffle(shuffled)
    random.seed(11)
    first, second, _ = Dataset.splits_from(labelled(*range(10)), [35, 35, 30])
    assert (ids(first), ids(second)) == (shuffled[:3], shuffled[3:6])
    random.seed(11)
    balanced = Dataset.labelbalanced_splits_from(labelled(*[0] * 10), [30, 70], label_of)
    assert ids(balanced[0]) == shuffled[:3]


def test_with_a_seed_splits_are_a_function_of_it() -> None:
    """The global random numbers neither matter nor change."""
    dataset = labelled(*"ab" * 15)

    def both(seed: int) -> list[list[int]]:
        parts = Dataset.splits_from(dataset, [50, 50], seed=seed)
        parts += Dataset.labelbalanced_splits_from(dataset, [50, 50], label_of, seed=seed)
        return list(map(ids, parts))

    random.seed(1)
    state = random.getstate()
    once = both(8)
    assert random.getstate() == state
    random.seed(2)
    assert both(8) == once
    assert both(9) != once


@pytest.mark.parametrize("shares", [[], [60, 30], [60, 50], [120, -20], [math.nan, 100]])
def test_percentages_that_are_no_partition_are_refused(shares: list[float]) -> None:
    """By both kinds of split."""
    with pytest.raises(ConfigError, match="sum to 100"):
        Dataset.splits_from(labelled("a"), shares)
    with pytest.raises(ConfigError, match="sum to 100"):
        Dataset.labelbalanced_splits_from(labelled("a"), shares, label_of)


def test_percentages_may_be_fractions() -> None:
    """Which do not sum to 100 to the last bit."""
    shares = [100 / 7] * 7
    assert sum(shares) != 100
    assert [len(part) for part in Dataset.splits_from(labelled(*range(70)), shares)] == [10] * 7


@given(
    labels=st.lists(st.sampled_from("abc"), max_size=40),
    shares=percentages(),
    seed=st.integers(0, 99),
)
def test_a_balanced_split_shares_out_every_label(
    labels: list[str], shares: list[int], seed: int
) -> None:
    """Each on its own as a split of that label alone would, and every patient once."""
    parts = Dataset.labelbalanced_splits_from(labelled(*labels), shares, label_of, seed=seed)
    assert sorted(i for part in parts for i in ids(part)) == list(range(len(labels)))
    for share, part in zip(shares[:-1], parts[:-1], strict=True):
        counts = Counter(map(label_of, part))
        assert counts == {
            label: size
            for label, count in Counter(labels).items()
            if (size := math.floor(share * count / 100))
        }


def test_a_verbose_split_prints_the_sizes_of_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    """In PyDmed it failed an assertion; it is the same split as the quiet one."""
    dataset = labelled(*[0] * 10, *[1] * 5)
    quiet = Dataset.labelbalanced_splits_from(dataset, [60, 40], label_of, seed=3)
    assert capsys.readouterr().out == ""
    verbose = Dataset.labelbalanced_splits_from(dataset, [60, 40], label_of, True, seed=3)
    assert list(map(ids, verbose)) == list(map(ids, quiet))
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second) == (
        "part 0: 9 patients by label {0: 6, 1: 3}",
        "part 1: 6 patients by label {0: 4, 1: 2}",
    )


def test_a_balanced_split_with_a_seed_is_the_same_in_every_program() -> None:
    """Though Python gives text another hash each time, and PyDmed went through a set of labels."""
    program = (
        "from chunkdl.pydmed.utils.data import *\n"
        "d = Dataset('d', [Patient(i, {'l': f'label {i % 7}'}) for i in range(70)])\n"
        "parts = Dataset.labelbalanced_splits_from(\n"
        "    d, [50, 50], lambda p: p.dict_records['l'], seed=1)\n"
        "print([p.int_uniqueid for part in parts for p in part])\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        ).stdout
        for seed in (1, 2)
    }
    assert len(answers) == 1


# ---- Balancing.


def test_repeating_goes_up_to_the_least_common_multiple() -> None:
    """3 and 8 patients become 24 and 24, those of one patient next to each other."""
    balanced = Dataset.balance_by_repeat(labelled(*"a" * 3, *"b" * 8), label_of)
    assert Counter(map(label_of, balanced)) == {"a": 24, "b": 24}
    originals = [patient.dict_records[KEY_OF_ORIGINAL_PATIENT] for patient in balanced]
    assert [p.int_uniqueid for p in originals if isinstance(p, Patient)] == [
        *[i for i in range(3) for _ in range(8)],
        *[i for i in range(3, 11) for _ in range(3)],
    ]


def test_the_ids_of_copies_say_which_copy_of_whom_they_are() -> None:
    """copy * 10**digits + id, so copy 0 has the id of its original."""
    three = [Patient(7, {"label": 0}, name="Anna"), Patient(120, {"label": 1})]
    three.append(Patient(5, {"label": 1}))
    balanced = Dataset.balance_by_repeat(Dataset("set", three), label_of)
    assert ids(balanced) == [7, 1007, 120, 5]
    assert [patient.name for patient in balanced] == ["Anna", "Anna", "120", "5"]


def test_copies_share_no_record_with_their_original() -> None:
    """But know it: the very object, under PyDmed's reserved key."""
    mask = np.zeros((2, 2))
    original = Patient(0, {"label": 0, "H&E": Record("/d/", "a.svs", {"tissue_mask": mask})})
    others = [Patient(1, {"label": 1}), Patient(2, {"label": 1})]
    balanced = Dataset.balance_by_repeat(Dataset("set", [original, *others]), label_of)
    for copied in balanced[:2]:
        record = copied.dict_records["H&E"]
        assert isinstance(record, Record)
        assert record.path == "/d/a.svs"
        record.dict_infos["tissue_mask"][:] = 1  # type: ignore[index]
        assert copied.dict_records["TODO:packagename reserved, original patient"] is original
    assert not mask.any()
    assert KEY_OF_ORIGINAL_PATIENT not in original.dict_records


@given(labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=20), more=st.integers(0, 30))
def test_every_label_gets_exactly_the_wanted_number(labels: list[str], more: int) -> None:
    """Also where that is not a multiple of what it has; PyDmed rounded down. No patient is lost."""
    wanted = max(Counter(labels).values()) + more
    balanced = Dataset.balance_by_repeat(labelled(*labels), label_of, wanted)
    assert Counter(map(label_of, balanced)) == dict.fromkeys(labels, wanted)
    assert {i % 10 ** len(str(len(labels) - 1)) for i in ids(balanced)} == set(range(len(labels)))


def test_a_number_that_would_lose_patients_is_refused() -> None:
    """In PyDmed the whole label vanished."""
    with pytest.raises(ConfigError, match="give 8 or more"):
        Dataset.balance_by_repeat(labelled(*"a" * 3, *"b" * 8), label_of, 7)


def test_an_empty_dataset_can_be_split_and_balanced() -> None:
    """Into empty ones."""
    assert [len(part) for part in Dataset.splits_from(labelled(), [50, 50])] == [0, 0]
    assert ids(Dataset.balance_by_repeat(labelled(), label_of)) == []


# ---- One image per patient.


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images, one of them deeper, a file of another kind, and a folder named like one."""
    for name in ("b.svs", "sub/deep/c.svs", "a.svs", "a.xml"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "images" / "folder.svs").mkdir()
    return tmp_path / "images"


@pytest.mark.parametrize("end", ["", "/"])
def test_each_image_below_a_folder_becomes_a_patient(images: Path, end: str) -> None:
    """In the order of the paths, which the functions are called with; the root may lack its "/"."""
    dataset = Dataset.create_onetoone(
        "set",
        f"{images}{end}",
        "svs",
        lambda name: {"label": f"label of {name}"},
        lambda name: {"info": f"info of {name}"},
    )
    names = ["a.svs", "b.svs", "sub/deep/c.svs"]
    assert (ids(dataset), dataset.str_dsname) == ([0, 1, 2], "set")
    for patient, name in zip(dataset, names, strict=True):
        record = patient.dict_records["wsi"]
        assert isinstance(record, Record)
        assert (record.rootdir, record.relativedir) == (f"{images}/", name)
        assert record.dict_infos == {"info": f"info of {name}"}
        assert patient.dict_records["label"] == f"label of {name}"


def test_a_relative_root_leads_to_the_files(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyDmed cut the wrong number of characters off; its users add the two strings."""
    monkeypatch.chdir(images / "sub")
    dataset = Dataset.create_onetoone("set", "../", "svs", lambda _: {}, lambda _: {})
    records = [patient.dict_records["wsi"] for patient in dataset]
    paths = [f"{r.rootdir}{r.relativedir}" for r in records if isinstance(r, Record)]
    assert paths == ["../a.svs", "../b.svs", "../sub/deep/c.svs"]
    assert all(map(os.path.isfile, paths))


def test_one_dict_of_records_for_all_patients_is_no_mix_up(images: Path) -> None:
    """It is copied, so that each patient has its own image."""
    shared: dict[str, Any] = {"label": 0}
    dataset = Dataset.create_onetoone("set", f"{images}/", "svs", lambda _: shared, lambda _: {})
    records = [patient.dict_records["wsi"] for patient in dataset]
    assert len({r.path for r in records if isinstance(r, Record)}) == 3
    assert shared == {"label": 0}


def test_a_folder_without_such_images_is_an_error_that_names_it(images: Path) -> None:
    """As is one that is not there; PyDmed gave an empty dataset."""
    for folder in (images, images / "nowhere"):
        with pytest.raises(DatasetError, match=rf"{folder}/ has no file that ends with .ndpi"):
            Dataset.create_onetoone("set", f"{folder}", "ndpi", lambda _: {}, lambda _: {})


# ---- Arithmetic.


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=5))
def test_the_least_common_multiple_is_exact(numbers: list[int]) -> None:
    """PyDmed divided floats; this is as good as multiplying prime powers."""
    multiple = lcm(numbers)
    assert all(multiple % number == 0 for number in numbers)
    quotients = [multiple // number for number in numbers]
    assert math.gcd(*quotients) == 1


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_most_and_least_frequent_values_are_found(values: list[int]) -> None:
    """Of several, the largest of the most and the smallest of the least frequent."""
    counts = Counter(values)
    most = [value for value in counts if counts[value] == max(counts.values())]
    least = [value for value in counts if counts[value] == min(counts.values())]
    assert (multimode(values), multiminority(values)) == (max(most), min(least))


def test_an_empty_list_has_neither() -> None:
    """Which the error says."""
    for function in (multimode, multiminority):
        with pytest.raises(ConfigError, match="empty list"):
            function([])


# ---- Processes and queues.


def test_only_the_newest_element_of_a_queue_is_given() -> None:
    """And the queue is empty afterwards; None says that it was before."""
    elements: queue.Queue[str] = queue.Queue()
    assert poplast_from_queue(elements) is None
    for element in "abc":
        elements.put(element)
    assert poplast_from_queue(elements) == "c"
    assert elements.empty()


def test_the_nicest_process_has_the_lowest_priority() -> None:
    """As its docstring says and PyDmed's did not."""
    program = f"import {set_nicemax.__module__} as m, os; m.set_nicemax(); print(os.nice(0))"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert answer.stdout == b"19\n"
    assert "lowest priority" in (set_nicemax.__doc__ or "")


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(child.pid, flush=True)
child.wait()
"""


def test_a_process_is_killed_with_all_it_started(eventually: Callable[..., bool]) -> None:
    """And one that is gone already is not an error."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        terminaterecursively(parent.pid)
        assert parent.wait(100) == -signal.SIGKILL
    # Nobody may be there to reap an orphan.
    assert eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    terminaterecursively(parent.pid)
