"""`SlidingWindowDL`: every tile of every image exactly once, whatever happens on the way."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.errors import ConfigError, DatasetError, HookError, SlideError
from chunkdl.patches.chunks import SmallChunk
from chunkdl.patches.hooks import EXHAUSTED
from chunkdl.pydmed.extensions.wsi import (
    SlidingWindowBigChunkLoader,
    SlidingWindowDL,
    SlidingWindowSmallChunkCollector,
    default_func_patient_to_fnameimage,
    tile_starts,
)
from chunkdl.pydmed.lightdl import (
    PYDMEDRESERVED_DLRETURNEDLASTINSTANCE,
    get_default_constglobinf,
)
from chunkdl.slides.synthetic.writing import CoordinateSlide, write_coordinate_slide

KERNEL = 100
SIZES = ((500, 400), (330, 100), (100, 230), (90, 300), (410, 350))
"""The second has one strip, the third one column, and on the fourth no tile fits."""

Images = dict[int, CoordinateSlide]


def write_images(folder: Path) -> Images:
    return {
        number: write_coordinate_slide(
            folder / f"{number}.tif", width, height, slide_id=number, tile=64, levels=(1, 2)
        )
        for number, (width, height) in enumerate(SIZES)
    }


def dataset_in(folder: Path, numbers: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Dataset:
    root = f"{folder}/"
    return Dataset(
        "images", [Patient(number, {"H&E": Record(root, f"{number}.tif")}) for number in numbers]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def images(folder: Path) -> Images:
    """Images whose every pixel says where it is; the files are in the folder."""
    return write_images(folder)


def sliding(dataset: Dataset, places: int = 2, stride: int = 90, **more: Any) -> SlidingWindowDL:
    settings = {**get_default_constglobinf(), "num_bigchunkloaders": places}
    arguments: dict[str, Any] = {
        "intorfunc_opslevel": 0,
        "tfms_onsmallchunkcollection": None,
        "batch_size": 16,
        "num_loaders": 1,
        "num_collectors": 1,
        "memory_limit": "1GiB",
        **more,
    }
    return SlidingWindowDL(
        kernel_size=KERNEL,
        stride=stride,
        mininterval_loadnewbigchunk=3,
        dataset=dataset,
        const_global_info=settings,
        tfms=None,
        **arguments,
    )


def place(chunk: SmallChunk) -> tuple[int, int, int]:
    """Patient, x and y of a tile."""
    strip = chunk.dict_info_of_bigchunk
    x = chunk.dict_info_of_smallchunk["x"] + strip["x"]
    return chunk.patient.int_uniqueid, x, chunk.dict_info_of_smallchunk["y"] + strip["y"]


def deliver(
    loader: SlidingWindowDL, after_first: Callable[[], object] = lambda: None
) -> list[SmallChunk]:
    """Every SmallChunk up to the reserved string."""
    chunks: list[SmallChunk] = []
    sizes = []
    loader.start()
    try:
        while not isinstance(returned := loader.get(), str):
            _, patients, batch = returned
            sizes.append(len(patients))
            chunks += batch
            if len(sizes) == 1:
                after_first()
        assert returned == loader.get() == PYDMEDRESERVED_DLRETURNEDLASTINSTANCE
        assert not loader.is_dl_running()
    finally:
        loader.pause_loading()
    assert set(sizes[:-1]) <= {loader.batch_size}, "only the last batch is short"
    return chunks


def expected(level: int = 0, stride: int = 90, numbers: tuple[int, ...] = (0, 1, 2, 4)) -> set[Any]:
    scale = 2**level
    return {
        (number, x, y)
        for number in numbers
        for x in tile_starts(SIZES[number][0] // scale, KERNEL, stride)
        for y in tile_starts(SIZES[number][1] // scale, KERNEL, stride)
    }


# ---- Where the tiles are.


@given(length=st.integers(1, 3000), kernel=st.integers(1, 600), stride=st.integers(1, 700))
def test_tiles_follow_the_stride_and_end_at_the_border(
    length: int, kernel: int, stride: int
) -> None:
    """Each begins once and lies inside; only the last may be nearer than the stride."""
    starts = tile_starts(length, kernel, stride)
    if length < kernel:
        assert starts == []
        return
    assert starts[0] == 0
    assert starts[-1] == length - kernel
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert all(step == stride for step in steps[:-1])
    assert all(0 < step <= stride for step in steps[-1:])


# ---- Deliveries.


@pytest.mark.parametrize("places", [1, 2, 9], ids="{} at a time".format)
def test_each_tile_of_each_patient_comes_once_with_its_pixels(
    places: int, folder: Path, images: Images
) -> None:
    """For fewer, and for more places than patients; an image without a tile is not a hang."""
    chunks = deliver(sliding(dataset_in(folder), places))
    assert Counter(map(place, chunks)) == dict.fromkeys(expected(), 1)
    for chunk in chunks:
        number, x, y = place(chunk)
        pixels = np.asarray(chunk.data).transpose(1, 2, 0)
        assert np.array_equal(pixels, images[number].pixels(0, x, y, KERNEL, KERNEL))
    for number in images:
        of_patient = [place(chunk) for chunk in chunks if chunk.patient.int_uniqueid == number]
        assert of_patient == sorted(of_patient, key=lambda at: (at[2], at[1])), "row by row"


def test_the_level_and_the_stride_are_those_that_were_asked_for(
    folder: Path, images: Images
) -> None:
    """A function of the patient says the level; the stride holds in both axes and may be larger
    than a tile; positional arguments and a path that is not a record of the patient work."""
    loader = SlidingWindowDL(
        lambda patient: 1 if patient.int_uniqueid == 0 else 0,
        KERNEL,
        130,
        3,
        None,
        lambda patient: str(folder / f"{patient.dict_records['file']}.tif"),
        Dataset("images", [Patient(0, {"file": 0}), Patient(4, {"file": 4})]),
        SlidingWindowBigChunkLoader,
        SlidingWindowSmallChunkCollector,
        get_default_constglobinf(),
        7,
        None,
        num_loaders=1,
        num_collectors=1,
    )
    chunks = deliver(loader)
    wanted = expected(1, 130, (0,)) | expected(0, 130, (4,))
    assert Counter(map(place, chunks)) == dict.fromkeys(wanted, 1)
    assert {y for number, _, y in wanted if number == 4} == {0, 130, 250}
    for chunk in chunks:
        number, x, y = place(chunk)
        level = chunk.dict_info_of_smallchunk["patch_levelidx"]
        pixels = images[number].pixels(level, x, y, KERNEL, KERNEL)
        assert np.array_equal(np.asarray(chunk.data).transpose(1, 2, 0), pixels)


def test_info_dicts_say_what_those_of_pydmed_said(folder: Path, images: Images) -> None:
    """Sizes, numbers of strips, and by how much the last row and column overlap those before;
    `tfms_onsmallchunkcollection` runs first, and its tensors come out channels last."""

    def first_two_channels(tile: Any) -> torch.Tensor:
        return torch.from_numpy(tile[..., :2] / np.float32(255)).permute(2, 0, 1)

    chunks = deliver(
        sliding(dataset_in(folder, (0,)), tfms_onsmallchunkcollection=first_two_channels)
    )
    assert {chunk.data.shape for chunk in chunks} == {(KERNEL, KERNEL, 2)}
    assert chunks[0].data[3, 7, 1] == pytest.approx(images[0].pixels(0, 7, 3, 1, 1)[0, 0, 1] / 255)
    first, last = chunks[0], chunks[-1]
    assert first.dict_info_of_smallchunk == {
        "x": 0,
        "y": 0,
        "patch_levelidx": 0,
        "kernel_size": KERNEL,
        "flag_auxlastcol": False,
        "vertbar_overlaptheprevpatch": "None",
    }
    assert last.dict_info_of_smallchunk["flag_auxlastcol"]
    assert last.dict_info_of_smallchunk["vertbar_overlaptheprevpatch"] == 60
    strip = last.dict_info_of_bigchunk
    assert [strip[name] for name in ("W", "H", "WSI_W", "WSI_H")] == [500, 400, 500, 400]
    assert (strip["x"], strip["y"]) == (0, 300)
    assert (strip["idx_bigrow"], strip["num_bigrows"]) == (4, 5)
    assert strip["flag_from_auxbigrow"]
    assert strip["horizbar_overlaptheprevpatch"] == 70
    assert strip["downsample_of_patchlevel"] == 1.0


# ---- What goes wrong.


@pytest.mark.parametrize("program", ["loader", "collector"])
def test_a_killed_worker_costs_no_tile_and_doubles_none(
    program: str,
    folder: Path,
    images: Images,
    processes_of_this_run: Callable[..., list[psutil.Process]],
) -> None:
    """Killed while strips are open and others are to come."""

    def kill() -> None:
        victims = processes_of_this_run(program)
        assert victims
        for victim in victims:
            victim.kill()

    loader = sliding(dataset_in(folder), stride=40, batch_size=8, batch_slots=2)
    chunks = deliver(loader, after_first=kill)
    assert Counter(map(place, chunks)) == dict.fromkeys(expected(stride=40), 1)


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    """Three patients: of the first, tiles in the middle of the file are torn; the last has none."""
    write_images(tmp_path)
    path = tmp_path / "0.tif"
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        across = -(-SIZES[0][0] // 64)
        start, count = page.dataoffsets[3 * across], page.databytecounts[3 * across]
    data = bytearray(path.read_bytes())
    data[start : start + count] = bytes(count)
    path.write_bytes(data)
    (tmp_path / "4.tif").unlink()
    return dataset_in(tmp_path, (0, 1, 4))


def test_an_unreadable_strip_and_a_missing_image_are_left_out_and_logged(
    damaged: Dataset, tmp_path: Path
) -> None:
    """All other strips come once, those behind the bad ones too."""
    log = tmp_path / "log"
    chunks = deliver(sliding(damaged, fname_logfile=log))
    # The torn tile has the rows 192 to 255.
    unreadable = {y for y in tile_starts(400, KERNEL, 90) if y + KERNEL > 192 and y < 256}
    assert unreadable == {180}
    wanted = {at for at in expected(numbers=(0, 1)) if at[0] != 0 or at[2] not in unreadable}
    assert Counter(map(place, chunks)) == dict.fromkeys(wanted, 1)
    lines = log.read_text().splitlines()
    assert sum("strip 2 of 5" in line and "0.tif" in line for line in lines) == 1
    assert sum("4.tif" in line and "no such file" in line for line in lines) == 1


def test_an_unreadable_strip_is_raised_where_that_is_asked_for(damaged: Dataset) -> None:
    """With on_error="raise", as a SlideError that names the file."""
    loader = sliding(Dataset("torn", damaged[:1]), on_error="raise")
    with pytest.raises(SlideError, match=r"0\.tif"):
        deliver(loader)


def test_wrong_arguments_are_refused_with_what_to_change(folder: Path, images: Images) -> None:
    """A stride of 0 and a patient without the record at once; a level that is not there by get."""
    with pytest.raises(ConfigError, match="stride=0 must be at least 1"):
        sliding(dataset_in(folder), stride=0)
    with pytest.raises(DatasetError, match='no record "H&E"'):
        default_func_patient_to_fnameimage(Patient(3, {"wsi": Record("/", "x.svs")}))
    with pytest.raises(HookError, match=r"says 5 for .* has the levels 0 to 1"):
        deliver(sliding(dataset_in(folder, (0,)), intorfunc_opslevel=5))


def test_a_subclass_of_the_loader_class_counts(
    folder: Path, images: Images, caplog: pytest.LogCaptureFixture
) -> None:
    """It may end an image early."""

    class TopStrip(SlidingWindowBigChunkLoader):
        def extract_bigchunk(self, arg_msg: Any) -> Any:
            if self.get_checkpoint() is None:
                return super().extract_bigchunk(arg_msg)
            self.log("the rest is not wanted")
            return EXHAUSTED

    with caplog.at_level(logging.INFO, "chunkdl.user"):
        chunks = deliver(sliding(dataset_in(folder), type_bigchunkloader=TopStrip))
    assert {place(chunk) for chunk in chunks} == {at for at in expected() if at[2] == 0}
    assert "the rest is not wanted" in caplog.text


def test_samples_of_16_bits_are_shown_through_the_window_of_the_loader(tmp_path: Path) -> None:
    """The rule for pixels holds for every file that the loader reads."""
    values = np.arange(KERNEL * KERNEL, dtype=np.uint16).reshape(KERNEL, KERNEL)
    tifffile.imwrite(tmp_path / "0.tif", values, tile=(112, 112), photometric="minisblack")
    (chunk,) = deliver(sliding(dataset_in(tmp_path, (0,)), window=(0, 25500)))
    shown = np.asarray(chunk.data).astype(float)
    assert sorted(shown.shape) == [3, KERNEL, KERNEL]
    grey = shown[..., 0] if shown.shape[-1] == 3 else shown[0]
    assert np.abs(grey - values / 100).max() <= 1
