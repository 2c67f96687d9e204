"""A loader with a pixel filter, on real files: what it looks at, counts, leaves out and raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from chunkdl import (
    AllOf,
    AnyOf,
    Contrast,
    Dataset,
    GreyShare,
    HsvShare,
    Not,
    OwnFilter,
    Patient,
    Record,
    WhiteShare,
)
from chunkdl.engine.config import StreamConfig
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.load_bigchunk import load_bigchunk
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.engine.work.window_plans import WindowPlan, window_plan
from chunkdl.errors import HookError, NothingPassesError, SlideError
from chunkdl.patches.filters.pixel_filter import PixelFilter
from chunkdl.sampling import filtered_draws as rule
from chunkdl.sampling.resolutions import Continuous
from chunkdl.sampling.seeding import Purpose, generator
from chunkdl.slides import refused_pictures
from chunkdl.slides.refused_pictures import keep_picture
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from chunkdl.transport.memory.arena import ALIGNMENT
from chunkdl.transport.protocol.engine_messages import LoadBigChunk
from tests.conftest import ragged_mask
from tests.processes.filter_functions import Counting, few_pass, raises, some_pass
from tests.service.conftest import arguments

Pixels = npt.NDArray[np.uint8]
SIDE = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A slide of three levels with ragged tissue."""
    path = str(tmp_path_factory.mktemp("filtered") / "one.tif")
    write_coordinate_slide(path, 1200, 960, tile=128, levels=(1, 2, 4), mpp=0.25)
    record = Record("/", path[1:], {"tissue_mask": ragged_mask(1)})
    return Dataset("one", [Patient(0, {"slide": record})])


class Loader:
    """What a loader does, in this process.

    Args:
        dataset: of one slide.
        pixel_filter: of the stream.
        cache: folder of the tissue masks.
        settings: other settings of the stream.
    """

    def __init__(
        self, dataset: Dataset, pixel_filter: PixelFilter, cache: Path, **settings: Any
    ) -> None:
        given: dict[str, Any] = {
            "smallchunk_size": SIDE,
            "bigchunk_size": 240,
            "num_bigchunks": 1,
            "smallchunks_per_bigchunk": 12,
            "memory_limit": "64MiB",
            "pixel_filter": pixel_filter,
        }
        service = configure(dataset, arguments(**{**given, **settings}))
        self.beats = 0
        self.stream: StreamConfig = service.stream
        self.plan: WindowPlan = window_plan(service.stream)
        self.slides = OpenSlides(service.slides, service.stream, cache, self._beat)
        size = -(-self.stream.bigchunk_layout.slot_bytes // ALIGNMENT) * ALIGNMENT
        self.slot = np.zeros(size, np.uint8)

    def _beat(self) -> None:
        self.beats += 1

    def load(self, ordinal: int) -> list[tuple[int, int, Pixels]]:
        """The rows of a BigChunk: corners in target pixels, and pixels."""
        opened = self.slides.get(0)
        planned = self.plan.at(opened, ordinal, 0)
        view = self.stream.bigchunk_layout.view(self.slot)
        ticket = LoadBigChunk(ordinal, 0, 0, -1, 12, 0, 0)
        load_bigchunk(planned, ticket, self.stream, 0, view)
        strips, found = view.strips(), []
        for record in view.records:
            crop = np.empty((SIDE, SIDE, 3), np.uint8)
            strips.crop_into(crop, int(record["left"]), int(record["top"]))
            found.append((int(record["x"]), int(record["y"]), crop))
        return found


@pytest.fixture
def loader(dataset: Dataset, tmp_path: Path) -> Callable[..., Loader]:
    """Makes a loader of that slide with a filter of the user."""

    def make(function: Callable[[Pixels], Any], **settings: Any) -> Loader:
        return Loader(
            dataset,
            OwnFilter(function, "1", getattr(function, "__name__", "own")),
            tmp_path / "masks",
            **settings,
        )

    return make


@pytest.mark.parametrize("wish", [{"level": 0}, {"mpp": 0.4}, {"mpp": {0.25: 1, 0.6: 1}}])
def test_the_filter_judges_the_very_pixels_that_are_delivered(
    loader: Callable[..., Loader], wish: dict[str, Any]
) -> None:
    """Resampled or not: each delivered crop was shown to it, passed, and is shown byte for byte."""
    shown: set[bytes] = set()

    def function(rgb: Pixels) -> bool:
        if passes := some_pass(rgb):
            shown.add(rgb.tobytes())
        return passes

    made = loader(function, **wish)
    seen = 0
    with made.slides as slides:
        for ordinal in range(12):
            for _, _, crop in made.load(ordinal):
                assert some_pass(crop)
                assert crop.tobytes() in shown
                seen += 1
        ((slide, looked, refused),) = slides.looks.news()
        assert list(slides.looks.news()) == []
    assert seen == 12 * 12
    assert slide == 0
    assert looked - refused == 12
    assert 0.2 < refused / looked < 0.8


@pytest.mark.parametrize(
    "counting",
    [
        HsvShare((0, 180), least=0.43),
        HsvShare((0, 180), least=0.43, step=5),
        WhiteShare(0.58, brightness=80),
        AnyOf(WhiteShare(0.55, brightness=80), Not(GreyShare(0)), Contrast(0.635)),
        AllOf(HsvShare((0, 180), least=0.38, step=3), WhiteShare(0.6, brightness=80)),
    ],
    ids=["hsv", "sampled", "white", "any", "all"],
)
@pytest.mark.parametrize("wish", [{"level": 0}, {"mpp": 0.4}])
def test_pixels_that_are_counted_once_for_a_window_give_the_answers_of_each_smallchunk(
    dataset: Dataset, tmp_path: Path, counting: PixelFilter, wish: dict[str, Any]
) -> None:
    """The rows are those of a function that looks at each SmallChunk by itself."""
    alone = OwnFilter(counting.__call__, "1", "alone")
    made, same = (Loader(dataset, one, tmp_path / "masks", **wish) for one in (counting, alone))
    with made.slides, same.slides:
        for ordinal in range(12):
            for row, expected in zip(made.load(ordinal), same.load(ordinal), strict=True):
                assert row[:2] == expected[:2]
                assert np.array_equal(row[2], expected[2])
                assert counting(row[2])
        ((_, looked, refused),) = made.slides.looks.news()
    assert 0.05 < refused / looked < 0.95


def test_a_bigchunk_is_the_same_whatever_was_loaded_before(loader: Callable[..., Loader]) -> None:
    """Also where the slot holds pixels of another one."""
    made, again = loader(few_pass), loader(few_pass)
    with made.slides, again.slides:
        first = [made.load(ordinal) for ordinal in (0, 1, 2)]
        second = [again.load(ordinal) for ordinal in (2, 1, 0)][::-1]
    for one, other in zip(first, second, strict=True):
        for row, same in zip(one, other, strict=True):
            assert row[:2] == same[:2]
            assert np.array_equal(row[2], same[2])


def test_every_look_is_a_sign_of_life(loader: Callable[..., Loader]) -> None:
    """Else a loader that refuses much would be taken for one that hangs."""
    beats = []

    def function(rgb: Pixels) -> bool:
        beats.append(made.beats)
        return few_pass(rgb)

    made = loader(function)
    with made.slides:
        made.load(0)
    assert len(beats) > 100
    assert len(set(beats)) == len(beats)


def test_a_slide_of_which_nothing_passes_is_named_with_the_filter_and_a_picture(
    loader: Callable[..., Loader], tmp_path: Path
) -> None:
    """The same for every BigChunk, looked at once, and the picture is of the slide."""
    looks = 0

    def nothing(rgb: Pixels) -> bool:
        nonlocal looks
        looks += 1
        return False

    made = loader(nothing)
    with made.slides:
        told = set()
        for ordinal in range(3):
            with pytest.raises(NothingPassesError) as caught:
                made.load(ordinal)
            told.add(str(caught.value))
        # The first is asked twice.
        assert looks == rule.PROBES + 1
        (text,) = told
        assert "one.tif" in text
        assert "pixel filter OwnFilter(" in text
        assert "nothing, version='1') refuses each of the 4,096 places" in text
        (picture,) = (tmp_path / "masks" / "refused").iterdir()
        assert str(picture) in text
        pixels = np.asarray(Image.open(picture))
        assert pixels.shape == (SIDE, SIDE, 3)
        out = np.empty((960, 1200, 3), np.uint8)
        made.slides.get(0).slide.read_into(out, 0, 0, 0)
        y, x = (int(axis[0]) for axis in np.nonzero((out == pixels[0, 0]).all(axis=2)))
        assert np.array_equal(out[y : y + SIDE, x : x + SIDE], pixels)


def test_where_no_picture_can_be_written_the_message_says_so(dataset: Dataset) -> None:
    """The slide is left out all the same."""
    made = Loader(dataset, OwnFilter(lambda rgb: False, "1", "none"), Path("/proc/nowhere"))
    with made.slides, pytest.raises(NothingPassesError, match="no picture of them could be wri"):
        made.load(0)


def test_a_resolution_at_which_nothing_passes_is_left_out_of_the_mixture(
    loader: Callable[..., Loader],
) -> None:
    """The other one is drawn instead, and the slide stays."""

    def only_of_level_0(rgb: Pixels) -> bool:
        # The pixels of level 0 have the lowest numbers.
        return bool(rgb[0, 0, 0] < (1200 * 960) >> 16)

    made = loader(only_of_level_0, mpp={0.25: 1, 0.5: 3})
    with made.slides:
        opened = made.slides.get(0)
        made.plan.find_places(opened)
        values = {made.plan.at(opened, ordinal, 0).resolution.value for ordinal in range(20)}
    assert values == {0.25}


def test_an_ordinal_whose_trials_are_used_up_is_an_error_of_its_region(
    loader: Callable[..., Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not of the slide, from which others are drawn."""
    monkeypatch.setattr(rule, "MOST_TRIALS", 20)
    made = loader(few_pass)
    with made.slides as slides:
        errors, loaded = [], 0
        for ordinal in range(20):
            try:
                made.load(ordinal)
                loaded += 1
            except SlideError as error:
                errors.append(error)
        ((_, looked, refused),) = slides.looks.news()
    assert loaded > 0
    assert errors
    assert all(error.level is not None for error in errors)
    assert "has refused all of 20 places that were drawn for BigChunk" in str(errors[0])
    # What failed is counted as well, or the share would be too small.
    assert refused == looked - loaded >= 20 * len(errors)


def test_what_the_function_raises_has_its_name_and_the_place(
    loader: Callable[..., Loader],
) -> None:
    """As the errors of other code of the user."""
    made = loader(raises)
    with made.slides, pytest.raises(HookError) as caught:
        made.load(0)
    assert caught.value.kind == "KeyError"
    assert caught.value.hook == "pixel_filter OwnFilter(raises, version='1')"
    assert "no such stain" in str(caught.value)
    assert "one.tif" in str(caught.value)


def test_a_function_with_two_answers_is_an_error(loader: Callable[..., Loader]) -> None:
    """The stream could not be made again."""
    made = loader(Counting())
    with made.slides, pytest.raises(HookError, match="two answers for the same pixels"):
        made.load(0)


def test_a_folder_holds_the_last_pictures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else has put there stays."""
    monkeypatch.setattr(refused_pictures, "MOST_PICTURES", 3)
    other = tmp_path / "mine.png"
    other.write_bytes(b"")
    pixels = np.zeros((4, 4, 3), np.uint8)
    paths = [keep_picture(tmp_path, f"/a/b {n}.svs", "grey", pixels) for n in range(5)]
    assert keep_picture(tmp_path, "/a/b 4.svs", "grey", pixels) == paths[4]
    assert other.exists()
    assert len(list(tmp_path.iterdir())) == 4
    assert paths[4].exists()


def test_a_filter_leaves_the_resolutions_of_a_range_as_they_are_drawn(
    loader: Callable[..., Loader],
) -> None:
    """Also where so little passes that probes of each value would miss it now and then."""
    wish = Continuous(0.25, 1.0, "log")
    made = loader(few_pass, mpp=wish)
    seed = made.stream.seed
    with made.slides:
        for ordinal in range(20):
            planned = made.plan.at(made.slides.get(0), ordinal, 0)
            first = next(wish.in_order(generator(seed, Purpose.RESOLUTION, ordinal)))
            assert planned.resolution.value == first
