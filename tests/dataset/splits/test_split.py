"""Parts and folds: who is where, and what is refused."""

from __future__ import annotations

import math
import pickle
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkdl import Dataset, Patient, Record, Split, check_disjoint
from chunkdl.errors import DatasetError


def cohort(labels: list[dict[str, object]], name: str = "cohort") -> Dataset:
    """A patient for each entry, with these labels and a slide of its own."""
    return Dataset(
        name,
        [
            Patient(n, {"slide": Record("/data", f"{n}.svs"), **own}, name=f"P{n:03d}")
            for n, own in enumerate(labels)
        ],
    )


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The same patients in another order, with other ids, as another listing of a folder has."""
    patients = list(dataset)
    random.Random(seed).shuffle(patients)
    return Dataset(
        "other", [Patient(n, p.dict_records, name=p.name) for n, p in enumerate(patients)]
    )


GRADES = [0] * 31 + [1] * 17 + [2] * 12
grades = st.lists(st.integers(6, 25), min_size=1, max_size=4).map(
    lambda counts: [grade for grade, count in enumerate(counts) for _ in range(count)]
)


@given(grades, st.integers(2, 6), st.integers(0, 3))
def test_folds_have_every_patient_once_and_each_class_evenly(
    grades: list[int], folds: int, seed: int
) -> None:
    """Each class and the whole differ by at most one patient between folds."""
    dataset = cohort([{"grade": grade} for grade in grades])
    split = Split.folds(dataset, folds, stratify="grade", seed=seed)
    assert split.parts == tuple(f"fold{n}" for n in range(1, folds + 1))
    found = [patient.name for fold in split for patient in split[fold]]
    assert sorted(found) == [patient.name for patient in dataset]
    counts = split.counts("grade")
    for grade in set(grades):
        of_grade = [counts[fold][str(grade)] for fold in split]
        assert max(of_grade) - min(of_grade) <= 1
    sizes = [len(split[fold]) for fold in split]
    assert max(sizes) - min(sizes) <= 1
    for fold in split:
        assert len(split[fold]) + len(split.without(fold)) == len(dataset)
        assert not {p.name for p in split[fold]} & {p.name for p in split.without(fold)}


@settings(max_examples=40)
@given(grades, st.sampled_from([(0.5, 0.5), (0.6, 0.2, 0.2), (0.5, 0.25, 0.25)]))
def test_parts_have_their_share_of_each_class(grades: list[int], sizes: tuple[float, ...]) -> None:
    """Rounded up or down; nothing nearer is possible for a class on its own."""
    dataset = cohort([{"grade": grade} for grade in grades])
    split = Split.draw(
        dataset, {f"part{n}": size for n, size in enumerate(sizes)}, stratify="grade"
    )
    for part, size in zip(split, sizes, strict=True):
        for grade, count in Counter(map(str, grades)).items():
            exact = round(size * count, 9)
            assert math.floor(exact) <= split.counts("grade")[part][grade] <= math.ceil(exact)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=20, max_size=40),
    st.booleans(),
    st.integers(0, 3),
)
def test_a_hospital_is_in_one_fold(
    patients: list[tuple[int, int]], stratified: bool, seed: int
) -> None:
    """Whole, also where its patients are far apart in the dataset."""
    # Each class is in six hospitals and more.
    patients += [(site, grade) for site in range(6) for grade in range(2)]
    dataset = cohort([{"site": f"h{site}", "grade": grade} for site, grade in patients])
    stratify = "grade" if stratified else None
    split = Split.folds(dataset, 2, stratify=stratify, together="site", seed=seed)
    sites = [{patient.labels["site"] for patient in split[fold]} for fold in split]
    assert not sites[0] & sites[1]
    assert sum(len(split[fold]) for fold in split) == len(dataset)


@pytest.mark.parametrize("how", [{}, {"spread": "site"}, {"together": "site"}])
def test_a_split_depends_on_seed_and_names_alone(how: dict[str, str]) -> None:
    """Not on the order of the patients, their ids, or the name of the dataset."""
    dataset = cohort([{"grade": grade, "site": f"h{n % 9}"} for n, grade in enumerate(GRADES)])

    def drawn(dataset: Dataset, seed: int) -> dict[str, str]:
        return dict(Split.folds(dataset, 3, stratify="grade", seed=seed, **how).part_of)

    first = drawn(dataset, 1)
    assert all(drawn(shuffled(dataset, seed), 1) == first for seed in range(3))
    assert drawn(dataset, 2) != first


def test_known_splits_stay_what_they_are() -> None:
    """A paper that names a seed can be repeated with a later version."""
    dataset = cohort([{"site": f"h{n % 4}"} for n in range(8)])
    assert "".join(p[-1] for p in Split.folds(dataset, 4, seed=7).part_of.values()) == "31122434"
    together = Split.folds(dataset, 2, together="site", seed=7)
    assert "".join(p[-1] for p in together.part_of.values()) == "11221122"


def test_numbers_of_patients_are_exact() -> None:
    """Also with classes whose shares of them are no whole numbers."""
    dataset = cohort([{"grade": grade} for grade in GRADES])
    split = Split.draw(dataset, {"train": None, "val": 7, "test": 13}, stratify="grade")
    assert [len(split[part]) for part in ("train", "val", "test")] == [40, 7, 13]
    for grade, count in split.counts("grade")["val"].items():
        assert abs(count - 7 / 60 * GRADES.count(int(grade))) < 1


def test_further_labels_are_spread_within_each_class() -> None:
    """Two hospitals of 15 patients each have 3 in each of five folds."""
    dataset = cohort([{"grade": n % 3 == 0, "site": f"h{n % 2}"} for n in range(30)])
    split = Split.folds(dataset, 5, stratify="grade", spread="site")
    alone = Split.folds(dataset, 5, spread=["site"])
    for found in (split, alone):
        assert all(fold == {"h0": 3, "h1": 3} for fold in found.counts("site").values())


def test_parts_are_datasets_in_the_order_of_the_whole() -> None:
    """With the very patients, under a name that says the part."""
    dataset = cohort([{}] * 10)
    split = Split.draw(dataset, {"train": 0.7, "test": 0.3})
    train = split["train"]
    assert train.str_dsname == "cohort train"
    assert list(train) == [patient for patient in dataset if patient in list(train)]
    assert all(any(patient is one for one in dataset) for patient in train)
    assert (list(split), len(split), split.parts) == (["train", "test"], 2, ("train", "test"))
    with pytest.raises(DatasetError, match="there is no part 'val'; the split has train, test"):
        split["val"]


def test_labels_of_slides_make_classes_too() -> None:
    """A patient with several values is of a class of its own, and a missing one says nothing."""

    def patient(number: int, *stains: str | None) -> Patient:
        records = {
            f"slide{n}": Record("/d", f"{number}-{n}.svs", labels={"stain": stain})
            for n, stain in enumerate(stains)
        }
        return Patient(number, {**records})

    patients = [patient(n, "HE") for n in range(4)]
    patients += [patient(n, "IHC", "HE") for n in range(4, 8)]
    patients += [patient(n, None, "HE") for n in range(8, 10)]
    split = Split.draw(Dataset("d", patients), {"a": 0.5, "b": 0.5}, stratify="stain")
    assert split.counts("stain") == {"a": {"HE": 3, "HE + IHC": 2}, "b": {"HE": 3, "HE + IHC": 2}}


def test_whole_numbers_are_one_class_however_a_table_holds_them() -> None:
    """pandas makes floats of integers where one is missing."""
    split = Split.folds(cohort([{"y": 1}, {"y": 1.0}, {"y": "1"}, {"y": 1}]), 2, stratify="y")
    assert split.counts("y") == {"fold1": {"1": 2}, "fold2": {"1": 2}}


@pytest.mark.parametrize(
    ("labels", "how", "message"),
    [
        ([{"y": 0}, {}], {}, "1 of 2 patients have no 'y': P001; give them one, such as 'unknown'"),
        ([{"y": math.nan}, {"y": 1}], {}, "1 of 2 patients have no 'y': P000"),
        ([{"y": 0.5}, {"y": 1}], {}, "patient P000: y=0.5 is no class"),
        ([{"y": [0, 1]}, {"y": 1}], {}, r"patient P000: y=\[0, 1\] is no class"),
        (
            [{"y": 0}, {"y": 0}, {"y": 1}],
            {},
            "class '1' has 1 patients, of which part 'fold1' would",
        ),
        (
            [{"y": 0, "site": "a"}] * 4,
            {"together": "site"},
            "together='site' has 1 values, too few for 2 parts",
        ),
        (
            [{"y": 0, "site": "a"}, {"y": 0, "site": "b"}, {"y": 1, "site": "a"}],
            {"together": "site"},
            "class '1' is in 1 groups only, too few for 2 parts",
        ),
        ([{"y": 0}] * 4, {"together": "site"}, "4 of 4 patients have no 'site'"),
        (
            [{"y": 0, "site": "a"}] * 4,
            {"together": "site", "spread": "site"},
            "spread has no meaning beside together",
        ),
        ([{"y": 0}] * 4, {"seed": 0.5}, "seed=0.5 must be a whole number"),
        ([{"y": 0}] * 4, {"spread": [3]}, "3 is not the name of a label"),
    ],
)
def test_what_cannot_be_stratified_is_refused(
    labels: list[dict[str, object]], how: dict[str, object], message: str
) -> None:
    """With the patients or classes that are in the way, and what to do."""
    with pytest.raises(DatasetError, match=message):
        Split.folds(cohort(labels), 2, stratify="y", **how)  # type: ignore[arg-type]


def test_a_part_that_no_hospital_brings_a_class_is_refused() -> None:
    """The only hospital of its size has none: the best arrangement leaves the part without."""
    large = [{"y": 0, "site": site} for site in "ab" for _ in range(40)]
    rare = [{"y": 1, "site": site} for site in "ab"]
    small = [{"y": 0, "site": "c"}] * 10
    with pytest.raises(DatasetError, match="part 'test' would have no patient of class '1'"):
        Split.draw(
            cohort([*large, *rare, *small]),
            {"train": 0.9, "test": 0.1},
            stratify="y",
            together="site",
        )


@pytest.mark.parametrize("count", [1, 0, 2.0, True])
def test_a_number_of_folds_is_a_whole_number_from_two_on(count: int) -> None:
    """One fold has nothing to train on."""
    with pytest.raises(DatasetError, match="folds cannot be made"):
        Split.folds(cohort([{}] * 4), count)


def test_more_folds_than_patients_are_refused() -> None:
    """A fold would be empty."""
    with pytest.raises(DatasetError, match="has 3 patients, too few for 4 folds"):
        Split.folds(cohort([{}] * 3), 4)


def test_patients_of_one_name_are_refused() -> None:
    """A split knows them by nothing else."""
    twins = Dataset("d", [Patient(0, {}, name="x"), Patient(1, {}, name="x"), Patient(2, {})])
    with pytest.raises(DatasetError, match="two patients are named 'x'"):
        Split.folds(twins, 2)


def test_patients_that_share_a_file_are_refused_whatever_the_seed(tmp_path: Path) -> None:
    """Through links and images of a file; with `together` they are in one part."""
    (tmp_path / "a.scn").touch()
    (tmp_path / "b.scn").symlink_to(tmp_path / "a.scn")
    records = [("a.scn#image=0", "h"), ("b.scn#image=1", "h"), ("c.scn", "i"), ("d.scn", "i")]
    patients = [
        Patient(n, {"s": Record(tmp_path, file), "site": site})
        for n, (file, site) in enumerate(records)
    ]
    dataset = Dataset("d", patients)
    for seed in range(4):
        with pytest.raises(DatasetError, match=r"patients 0 and 1 have the same file .*a\.scn"):
            Split.folds(dataset, 2, seed=seed)
    split = Split.folds(dataset, 2, together="site")
    assert split.part_of["0"] == split.part_of["1"] != split.part_of["2"]
    with pytest.raises(DatasetError, match=r"a\.scn is in part 'x' \(patient 0\) and in part 'y'"):
        Split(dataset, {"0": "x", "1": "y", "2": "x", "3": "y"})


@given(st.lists(st.integers(0, 9), min_size=4, max_size=12), st.integers(0, 3))
def test_no_file_is_in_two_parts(
    tmp_path_factory: pytest.TempPathFactory, files: list[int], seed: int
) -> None:
    """Patients share files at random: the dataset is refused, or all parts are disjoint."""
    folder = tmp_path_factory.getbasetemp()
    dataset = Dataset(
        "d", [Patient(n, {"s": Record(folder, f"{f}.svs")}) for n, f in enumerate(files)]
    )
    if len(set(files)) < len(files):
        with pytest.raises(DatasetError, match="have the same file"):
            Split.folds(dataset, 2, seed=seed)
        return
    split = Split.folds(dataset, 2, seed=seed)
    check_disjoint(*(split[fold] for fold in split))
    check_disjoint(split["fold1"], split.without("fold1"))


def test_a_split_can_be_made_by_hand() -> None:
    """Each patient needs a part, and each part a patient."""
    dataset = cohort([{}] * 3)
    split = Split(dataset, {"P002": "b", "P000": "a", "P001": "b"}, ("a", "b"))
    assert dict(split.part_of) == {"P000": "a", "P001": "b", "P002": "b"}
    for part_of, parts, message in (
        ({"P000": "a", "P001": "b"}, (), "1 patients have no part: P002"),
        ({**split.part_of, "P9": "a"}, (), "1 patients are not of the dataset: P9"),
        (split.part_of, ("a", "b", "c"), "parts have no patient: c"),
        (split.part_of, ("a",), "parts are not among its parts: b"),
    ):
        with pytest.raises(DatasetError, match=message):
            Split(dataset, part_of, parts)


def test_a_split_is_a_value() -> None:
    """It cannot be changed, and is equal to another with the same parts, also from a pickle."""
    dataset = cohort([{}] * 6)
    split = Split.folds(dataset, 2, seed=1)
    with pytest.raises(AttributeError):
        split.parts = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        split.part_of["P000"] = "fold2"  # type: ignore[index]
    again = pickle.loads(pickle.dumps(split))
    assert (again, hash(again)) == (split, hash(split))
    assert again != Split.folds(dataset, 2, seed=2)
