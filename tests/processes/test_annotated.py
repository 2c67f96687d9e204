"""Streams that look at annotations: what is drawn, what is said of each row, and by whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from chunkdl import (
    Dataset,
    LightDL,
    OwnAnnotations,
    Patient,
    Record,
    Regions,
    TissueBigChunkLoader,
    TissueSmallChunkCollector,
    connect,
)
from chunkdl.errors import AnnotationError, ConfigError, HookError, StateError
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, ServiceSettings
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box, geojson_of
from tests.conftest import batch_digest
from tests.service.conftest import arguments

WIDTH, HEIGHT = 1500, 1248
SIDE = 64
BOXES: dict[int, list[tuple[int, int, int, int, str]]] = {
    0: [(120, 90, 430, 410, "tumor"), (800, 300, 500, 700, "stroma"), (900, 400, 100, 90, "tumor")],
    1: [(700, 200, 600, 800, "stroma"), (50, 900, 300, 300, "ink")],
    2: [(300, 300, 500, 640, "tumor"), (10, 10, 200, 220, "ink")],
}
"""On each slide, later ones over earlier ones; the second has no tumor."""
STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": SIDE,
    "bigchunk_size": 512,
    "num_bigchunks": 16,
    "smallchunks_per_bigchunk": 8,
    "tissue": "none",
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "200MiB",
    "seed": 4,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three slides, with a folder of what is annotated on them."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "shapes").mkdir()
    for number, boxes in BOXES.items():
        name = f"slide-{number}"
        path = str(folder / f"{name}.tif")
        write_coordinate_slide(path, WIDTH, HEIGHT, slide_id=number, tile=128, levels=(1, 2))
        shapes = geojson_of(*(box(*one) for one in boxes))
        (folder / "shapes" / f"{name}.geojson").write_bytes(shapes)
    return folder


@pytest.fixture(scope="module")
def dataset(drawn: Path) -> Dataset:
    """Each slide is a patient."""
    return Dataset.from_slides(str(drawn))


@pytest.fixture(scope="module")
def stream(drawn: Path) -> dict[str, Any]:
    """Arguments of a small stream that looks at the annotations."""
    return {**STREAM, "annotations": str(drawn / "shapes")}


def classes_of(number: int, names: list[str]) -> npt.NDArray[np.uint8]:
    """The class of every level-0 pixel of a slide, by hand: 1 + the index of its name."""
    found = np.zeros((HEIGHT + SIDE, WIDTH + SIDE), np.uint8)
    for x, y, width, height, name in BOXES[number]:
        found[y : y + height, x : x + width] = 1 + names.index(name) if name in names else 0
    return found


def rows_of(batch: Any) -> Iterator[tuple[int, int, int, int]]:
    """Number of the slide, corner, and row of each row of a batch."""
    numbers = (int(Path(slide).stem[-1]) for slide in batch["slide"])
    corners = zip(numbers, batch["x"].tolist(), batch["y"].tolist(), strict=True)
    for row, (number, x, y) in enumerate(corners):
        yield number, x, y, row


def digest_of(batch: Any) -> tuple[str, bytes, bytes]:
    """Of a batch with what annotations say of it."""
    return (
        batch_digest(batch),
        batch["region"].numpy().tobytes(),
        batch["label_mask"].numpy().tobytes(),
    )


def test_every_row_has_the_class_of_its_centre_and_of_each_pixel(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """Against what was drawn, pixel by pixel; later shapes lie over earlier ones."""
    with LightDL(dataset, **stream, label_mask=True) as loader:
        names = loader.tables["region"]
        assert names == ["ink", "stroma", "tumor"]
        whole = {number: classes_of(number, names) for number in BOXES}
        seen = Counter[int]()
        for _ in range(30):
            batch = loader.next_batch(60)
            assert batch["label_mask"].shape == (16, SIDE, SIDE)
            for number, x, y, row in rows_of(batch):
                expected = whole[number][y : y + SIDE, x : x + SIDE]
                assert np.array_equal(batch["label_mask"][row].numpy(), expected)
                region = int(batch["region"][row])
                assert region == int(expected[SIDE // 2, SIDE // 2]) - 1
                seen[region] += 1
        assert set(seen) == {-1, 0, 1, 2}


def test_shares_and_the_largest_class_are_those_of_the_label_mask(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """By the pixels; what is not annotated may be the largest."""
    asked: dict[str, Any] = {"label_mask": True, "region_label": "largest", "region_shares": True}
    with LightDL(dataset, **stream, **asked) as loader:
        seen = set()
        for _ in range(40):
            batch = loader.next_batch(60)
            assert batch["region_shares"].shape == (16, 3)
            for row, mask in enumerate(batch["label_mask"].numpy()):
                counts = np.bincount(mask.ravel(), minlength=4)
                assert int(batch["region"][row]) == int(counts.argmax()) - 1
                shares = batch["region_shares"][row].numpy()
                assert np.array_equal(shares, (counts[1:] / SIDE**2).astype(np.float32))
                seen.add(int(batch["region"][row]) == int(mask[SIDE // 2, SIDE // 2]) - 1)
    assert seen == {True, False}


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_rows_lie_inside_or_outside_as_far_as_they_have_to(
    dataset: Dataset, stream: dict[str, Any], where: str, share: float
) -> None:
    """To a sixteenth of a side at each edge, where cells of positions are accepted whole; and up to
    the edge of the regions."""
    roi = {"where": where, "share": share, "classes": ["stroma", "tumor"]}
    with LightDL(dataset, **stream, roi=roi, label_mask=True) as loader:
        names = loader.tables["region"]
        least = 1.0
        for _ in range(60):
            batch = loader.next_batch(60)
            for mask in batch["label_mask"].numpy():
                of_roi = np.isin(mask, [1 + names.index("stroma"), 1 + names.index("tumor")])
                found = float((of_roi if where == "inside" else ~of_roi).mean())
                assert found >= share - 2 / 16
                least = min(least, found)
    assert least < share + 0.2


def test_auto_is_inside_on_the_slides_that_have_any(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """And anywhere on the others, of which none is left out."""
    roi = {"where": "auto", "classes": ["tumor"], "share": 1.0}
    of_slide: dict[int, Counter[str]] = {number: Counter() for number in BOXES}
    with LightDL(dataset, **stream, roi=roi) as loader:
        names = [*loader.tables["region"], "nothing"]
        for _ in range(60):
            batch = loader.next_batch(60)
            for number, _, _, row in rows_of(batch):
                of_slide[number][names[int(batch["region"][row])]] += 1
    assert set(of_slide[0]) == set(of_slide[2]) == {"tumor"}
    assert {"nothing", "stroma"} <= set(of_slide[1])
    assert len({sum(counts.values()) for counts in of_slide.values()}) <= 3


def test_slides_with_points_alone_have_no_area_to_be_inside_of(
    tmp_path: Path, stream: dict[str, Any]
) -> None:
    """With "auto" they are drawn everywhere, as those without a file."""
    point = {"type": "Point", "coordinates": [30, 40]}
    cell = box(50, 60, 9, 9, "tumor")
    cell["properties"]["objectType"] = "detection"
    dots = {**box(0, 0, 1, 1, "tumor"), "geometry": point}
    for number, shape in enumerate((box(100, 100, 300, 300, "tumor"), dots, cell)):
        path = str(tmp_path / f"slide-{number}.tif")
        write_coordinate_slide(path, 600, 600, slide_id=number, tile=128, levels=(1,))
        (tmp_path / f"slide-{number}.geojson").write_bytes(geojson_of(shape))
    given = {**stream, "annotations": str(tmp_path), "roi": "auto", "on_error": "raise"}
    with LightDL(Dataset.from_slides(tmp_path), **given) as loader:
        slides = Counter(Path(one).stem for _ in range(9) for one in loader.next_batch(60)["slide"])
    assert set(slides) == {"slide-0", "slide-1", "slide-2"}


def test_slides_that_lack_what_is_wished_are_left_out_and_named(
    dataset: Dataset, stream: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Before anything is read of them."""
    with LightDL(dataset, **stream, roi={"where": "inside", "classes": ["tumor"]}) as loader:
        slides = {slide for _ in range(20) for slide in loader.next_batch(60)["slide"]}
    assert {Path(slide).stem for slide in slides} == {"slide-0", "slide-2"}
    assert "1 of 3 slides have no annotated area of 'tumor'" in caplog.text
    assert "slide-1.tif" in caplog.text


@pytest.mark.parametrize("within", ["stream", "slide"])
def test_classes_come_as_often_as_their_weights_say(
    dataset: Dataset, stream: dict[str, Any], within: Any
) -> None:
    """Over the stream exactly; within each slide in proportion to those that it has."""
    regions = Regions({"tumor": 1, "stroma": 3}, share=0.5, within=within)
    bigchunks: dict[int, tuple[int, str]] = {}
    with LightDL(dataset, **{**stream, "smallchunks_per_bigchunk": 1}, regions=regions) as loader:
        names = loader.tables["region"]
        for _ in range(120):
            batch = loader.next_batch(60)
            for number, _, _, row in rows_of(batch):
                drawn = names[int(batch["drawn_region"][row])]
                bigchunks[int(batch["bigchunk"][row])] = number, drawn
    counts = Counter(bigchunks.values())
    total = len(bigchunks)
    assert total == 120 * 16
    of_class = Counter(name for _, name in bigchunks.values())
    if within == "stream":
        # 30 rounds of 64 ordinals, each with 16 of tumor.
        assert of_class == {"tumor": total // 4, "stroma": 3 * total // 4}
        assert counts[0, "stroma"] == pytest.approx(3 * total / 8, rel=0.1)
        assert counts[1, "stroma"] == pytest.approx(3 * total / 8, rel=0.1)
        assert counts[0, "tumor"] == pytest.approx(total / 8, rel=0.2)
    else:
        assert sum(counts[0, name] for name in ("tumor", "stroma")) == total // 3
        assert counts[0, "tumor"] == pytest.approx(total / 12, rel=0.25)
        assert (counts[1, "stroma"], counts[2, "tumor"]) == (total // 3, total // 3)
    assert (1, "tumor") not in counts


def test_rows_of_a_class_lie_in_it(dataset: Dataset, stream: dict[str, Any]) -> None:
    """With the share that is wished; whatever else lies in them is said by the label mask."""
    regions = {"weights": {"tumor": 1, "ink": 1}, "share": 0.8}
    with LightDL(dataset, **stream, regions=regions, label_mask=True) as loader:
        for _ in range(30):
            batch = loader.next_batch(60)
            for row, drawn in enumerate(batch["drawn_region"].tolist()):
                share = (batch["label_mask"][row] == 1 + drawn).float().mean()
                assert share >= 0.8 - 2 / 16


def test_a_small_annotation_comes_as_often_as_a_large_one(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """The first slide has two of tumor, one of them in what is annotated as stroma."""
    regions = {"weights": {"tumor": 1}, "draw": "annotations"}
    small = drawn = 0
    with LightDL(dataset, **{**stream, "smallchunks_per_bigchunk": 1}, regions=regions) as loader:
        for _ in range(40):
            batch = loader.next_batch(60)
            for number, x, y, _ in rows_of(batch):
                if number == 0:
                    drawn += 1
                    small += 890 - 8 <= x + SIDE // 2 < 1010 and 390 <= y + SIDE // 2 < 500
    assert drawn == 40 * 8
    assert stats.binomtest(small, drawn, 0.5).pvalue > 1e-3


@pytest.mark.parametrize(
    "regions",
    [
        {"tumor": 1, "stroma": 1},
        {"weights": {"tumor": 1, "ink": 1}, "draw": "annotations", "area_power": 0.5},
        {"weights": {"tumor": 1, "ink": 1}, "draw": "centroids", "jitter_px": 40},
    ],
    ids=["places", "annotations", "centroids"],
)
def test_the_rows_are_the_same_for_any_workers_resumed_and_from_a_service(
    dataset: Dataset, stream: dict[str, Any], tmp_path: Path, regions: dict[str, Any]
) -> None:
    """Bit for bit, classes and label masks too; a far consumer knows the names."""
    wish = {**stream, "regions": regions, "label_mask": True}
    with LightDL(dataset, **wish) as loader:
        expected = [digest_of(loader.next_batch(60)) for _ in range(40)]
        names = loader.tables["region"]
    with LightDL(dataset, **{**wish, "num_loaders": 3, "num_collectors": 2}) as loader:
        for number in range(20):
            assert digest_of(loader.next_batch(60)) == expected[number]
        state = loader.state_dict()
    with LightDL(dataset, **wish) as loader:
        loader.load_state_dict(state)
        assert [digest_of(loader.next_batch(60)) for _ in range(20)] == expected[20:]
    address = f"ipc://{tmp_path}/s"
    settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
    spec = configure_service(dataset, arguments(**{**wish, "batch_slots": 0}), settings)
    with closing(ServiceProcess(spec)), connect(address, rank=0, world_size=1) as consumer:
        assert [digest_of(consumer.next_batch(60)) for _ in range(10)] == expected[:10]
        assert consumer.tables["region"] == names


def test_a_grid_pass_has_the_positions_inside_and_their_classes(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """Each once, and none that lies elsewhere."""
    roi = {"where": "inside", "share": 0.999}
    grid = {**stream, "smallchunks_per_bigchunk": None, "grid": True, "roi": roi}
    places = []
    with LightDL(dataset, **grid) as loader:
        names = loader.tables["region"]
        whole = {number: classes_of(number, names) > 0 for number in BOXES}
        for batch in loader:
            places += [(number, x, y) for number, x, y, _ in rows_of(batch)]
            assert (batch["region"] >= 0).all()
    expected = {
        (number, x, y)
        for number, inside in whole.items()
        for x in range(0, WIDTH - SIDE + 1, SIDE)
        for y in range(0, HEIGHT - SIDE + 1, SIDE)
        if inside[y : y + SIDE, x : x + SIDE].all()
    }
    assert len(places) == len(set(places))
    # The raster that decides has cells of an eighth of a side, whose centres count.
    assert expected <= set(places)
    for number, x, y in places:
        assert whole[number][y : y + SIDE, x : x + SIDE].mean() > 1 - 2 / 8


def shapes_of(folder: Path) -> Callable[[str], Any]:
    """A function that says the file of a slide."""
    return lambda slide: str(folder / "shapes" / f"{Path(slide).stem}.geojson")


def test_annotations_of_a_function_and_of_records_are_those_of_a_folder(
    dataset: Dataset, stream: dict[str, Any], drawn: Path
) -> None:
    """The same stream, whichever way it was told."""
    patients = [
        Patient(
            number,
            {
                "slide": Record(
                    "/", str(record.path)[1:], {"annotations": shapes_of(drawn)(record.path)}
                )
            },
        )
        for number, record in enumerate(patient.slides[0] for patient in dataset)
    ]
    of_records = Dataset("records", patients)
    plain = {name: value for name, value in stream.items() if name != "annotations"}
    ways: list[tuple[Dataset, dict[str, Any]]] = [
        (dataset, stream),
        (dataset, {**plain, "annotations": OwnAnnotations(shapes_of(drawn), key="1")}),
        (of_records, plain),
    ]
    found = []
    for of, given in ways:
        with LightDL(of, **given, label_mask=True) as loader:
            found.append([digest_of(loader.next_batch(60))[1:] for _ in range(4)])
    assert found[0] == found[1] == found[2]


def test_classes_have_other_names_or_none(dataset: Dataset, stream: dict[str, Any]) -> None:
    """What is left out hides nothing that lies under it."""
    renamed = {"tumor": "", "stroma": "tissue", "ink": "artefact"}
    with LightDL(dataset, **stream, region_names=renamed, label_mask=True) as loader:
        assert loader.tables["region"] == ["artefact", "tissue"]
        whole = classes_of(0, ["none", "stroma"])
        whole[400:490, 900:1000] = 2  # the tumor in the stroma
        for _ in range(20):
            batch = loader.next_batch(60)
            for number, x, y, row in rows_of(batch):
                if number == 0:
                    expected = whole[y : y + SIDE, x : x + SIDE]
                    assert np.array_equal(batch["label_mask"][row].numpy(), expected)


def test_a_list_of_classes_has_them_in_its_order_and_no_others(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """Also one that is on no slide, so that the numbers are the same for other slides."""
    names = ["tumor", "necrosis", "stroma"]
    with LightDL(dataset, **stream, region_names=names, label_mask=True) as loader:
        assert loader.tables["region"] == names
        values = {int(v) for _ in range(20) for v in loader.next_batch(60)["label_mask"].unique()}
    assert values == {0, 1, 3}


def test_services_with_other_classes_are_not_read_as_one(
    dataset: Dataset, stream: dict[str, Any], tmp_path: Path
) -> None:
    """A number would mean another class in each; with the same list it does not."""
    addresses = [f"ipc://{tmp_path}/{number}" for number in range(2)]
    for names, refused in ((None, True), (["stroma", "tumor", "ink"], False)):
        with ExitStack() as stack:
            for address, patient in zip(addresses, list(dataset)[1:], strict=True):
                settings = ServiceSettings(binds=(address,), groups=(GroupSpec(name="train"),))
                given = arguments(**{**stream, "batch_slots": 0, "region_names": names})
                spec = configure_service(Dataset("one", [patient]), given, settings)
                stack.callback(ServiceProcess(spec).close)
            if refused:
                with pytest.raises(ConfigError, match="the numbers in the column region"):
                    connect(addresses, rank=0, world_size=1)
                continue
            with connect(addresses, rank=0, world_size=1) as loader:
                assert loader.tables["region"] == [names, names]
                assert set(loader.next_batch(60)["node"].tolist()) == {0, 1}


def double(crop: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """A transform to two columns."""
    return {"image": crop * np.uint8(2), "first": crop[0, 0, 0]}


def test_rows_of_a_transform_have_the_columns_of_their_annotations(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """Beside its own, the same as without the transform."""
    wish = {**stream, "regions": {"tumor": 1}, "label_mask": True, "region_shares": True}
    with LightDL(dataset, **wish) as plain, LightDL(dataset, **wish, tfms=double) as loader:
        for _ in range(10):
            expected, batch = plain.next_batch(60), loader.next_batch(60)
            assert {"image", "first", "label_mask", "region_shares"} <= set(batch)
            for name in ("region", "drawn_region", "region_shares", "label_mask"):
                assert batch[name].equal(expected[name]), name
            # A transform has the channels where it left them.
            image = expected["image"].permute(0, 2, 3, 1)
            assert batch["image"].equal(image * 2)
            assert batch["first"].equal(image[:, 0, 0, 0])


def test_a_transform_in_the_training_process_leaves_the_columns_of_annotations(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """And so does a collate function, which gets them with each SmallChunk."""
    wish = {**stream, "regions": {"tumor": 1}, "label_mask": True, "region_shares": True}
    with LightDL(dataset, **wish) as plain:
        expected = plain.next_batch(60)
    with LightDL(dataset, **wish, tfms=double, tfms_in="consumer") as loader:
        batch = loader.next_batch(60)
        assert batch.row_columns == ("first", "image")
        for name in ("region", "drawn_region", "region_shares", "label_mask"):
            assert batch[name].equal(expected[name]), name
    with LightDL(dataset, **wish, collate_func=lambda chunks, _: chunks) as loader:
        chunks = loader.get(60)
        loader.get(60)
        for row, chunk in enumerate(chunks):
            assert chunk.dict_info_of_smallchunk["label_mask"].equal(expected["label_mask"][row])
            assert int(chunk.dict_info_of_smallchunk["region"]) == int(expected["region"][row])


def test_what_lies_beyond_the_slide_has_no_class(tmp_path: Path, stream: dict[str, Any]) -> None:
    """In the padding of a grid, whatever was drawn there."""
    path = str(tmp_path / "slide-0.tif")
    write_coordinate_slide(path, 200, 150, slide_id=0, tile=128, levels=(1,))
    (tmp_path / "slide-0.geojson").write_bytes(geojson_of(box(50, 50, 400, 400, "tumor")))
    given = {name: value for name, value in stream.items() if name != "smallchunks_per_bigchunk"}
    given |= {"annotations": str(tmp_path), "grid": True, "edge": "pad", "label_mask": True}
    with LightDL(Dataset.from_slides(tmp_path), **given, region_shares=True) as loader:
        for batch in loader:
            for row, (_, x, y, _) in enumerate(rows_of(batch)):
                expected = np.zeros((SIDE, SIDE), np.uint8)
                ys, xs = np.mgrid[y : y + SIDE, x : x + SIDE]
                expected[(xs >= 50) & (ys >= 50) & (xs < 200) & (ys < 150)] = 1
                assert np.array_equal(batch["label_mask"][row].numpy(), expected)
                assert float(batch["region_shares"][row, 0]) == pytest.approx(expected.mean())


def test_rows_without_a_place_for_what_is_asked_are_an_error(
    dataset: Dataset, stream: dict[str, Any]
) -> None:
    """Not rows without it."""
    with (
        LightDL(dataset, **stream, regions={"tumor": 1}, tfms=lambda crop: crop.tolist()) as loader,
        pytest.raises(HookError, match="no place for the columns drawn_region"),
    ):
        loader.next_batch(60)


class OwnLoader(TissueBigChunkLoader):
    """A class of the user."""


OWN_CLASSES = {
    "type_bigchunkloader": OwnLoader,
    "type_smallchunkcollector": TissueSmallChunkCollector,
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"roi": "inside", "annotations": None}, "roi needs annotations: give annotations="),
        ({"label_mask": True, "annotations": None}, "label_mask needs annotations"),
        (
            {"roi": {"where": "inside", "classes": ["Tumor"]}},
            "no slide has the class 'Tumor'; there",
        ),
        ({"regions": {"necrosis": 1}}, "regions: no slide has the class 'necrosis'"),
        ({"regions": {"tumor": 1}, "grid": True, "smallchunks_per_bigchunk": None}, "give roi="),
        ({"regions": {"tumor": 1}, **OWN_CLASSES}, "regions gives columns beside the image"),
        ({"label_mask": True, **OWN_CLASSES}, "label_mask gives columns beside the image"),
        ({"roi": "within"}, "roi='within' is unknown"),
        ({"roi": {"share": 0.5}}, "must be a table of where, classes, share"),
        ({"regions": {"tumor": 0}}, "weight of 'tumor' must be above 0"),
        ({"regions": {}}, "must be weights by class"),
        ({"annotations": shapes_of}, "OwnAnnotations"),
        ({"annotation_reading": {"formats": "asap"}}, "must be a table of format"),
        ({"region_names": {"tumor": 5}}, "must map names of classes"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    dataset: Dataset, stream: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=message):
        LightDL(dataset, **{**stream, **given})


def test_names_that_are_in_no_file_are_told(
    drawn: Path, dataset: Dataset, stream: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Of classes and of files: what is written otherwise looks like what is not there."""
    with LightDL(dataset, **stream, region_names={"Tumor": "a", "ink": "b"}):
        assert "region_names: no file has the class 'Tumor'; there are 'ink'" in caplog.text
    with pytest.raises(ConfigError, match="no file has the class 'Tumor', 'Stroma'; there are"):
        LightDL(dataset, **stream, region_names=["Tumor", "Stroma"])
    with pytest.raises(ConfigError, match="leaves no class"):
        LightDL(dataset, **stream, region_names=[])
    (drawn / "shapes" / "slide-1.geojson").rename(drawn / "shapes" / "slide_1.geojson")
    try:
        with LightDL(dataset, **stream, label_mask=True):
            assert "1 of 3 slides have no file of annotations" in caplog.text
            assert "slide_1.geojson" in caplog.text
    finally:
        (drawn / "shapes" / "slide_1.geojson").rename(drawn / "shapes" / "slide-1.geojson")


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    dataset: Dataset, stream: dict[str, Any], tmp_path: Path
) -> None:
    """Rather than a slide without annotations."""
    (tmp_path / "slide-0.geojson").write_text('{"type": "FeatureCollection"')
    with pytest.raises(AnnotationError, match=r"slide-0\.geojson"):
        LightDL(dataset, **{**stream, "annotations": str(tmp_path)})


def test_a_state_of_other_annotations_is_refused(
    dataset: Dataset, stream: dict[str, Any], tmp_path: Path
) -> None:
    """What is drawn is part of the stream."""
    with LightDL(dataset, **stream) as loader:
        loader.next_batch(60)
        state = loader.state_dict()
    for number, boxes in BOXES.items():
        moved = [(x + 1, y, w, h, name) for x, y, w, h, name in boxes]
        shapes = geojson_of(*(box(*one) for one in moved))
        (tmp_path / f"slide-{number}.geojson").write_bytes(shapes)
    with (
        LightDL(dataset, **{**stream, "annotations": str(tmp_path)}) as loader,
        pytest.raises(StateError, match="other"),
    ):
        loader.load_state_dict(state)
