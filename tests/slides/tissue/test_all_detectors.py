"""What holds for every detector, and the forms in which a file says them."""

from __future__ import annotations

import pickle
import sys
import tomllib
import tracemalloc
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chunkdl.engine.settings.checks import checked_detector
from chunkdl.errors import ConfigError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.blurred_areas import BlurredAreas
from chunkdl.slides.tissue.detectors.clam import Clam
from chunkdl.slides.tissue.detectors.combined import TissueAll, TissueAny, TissueWithout
from chunkdl.slides.tissue.detectors.detector import Cells, Scale, TissueDetector, find_tissue
from chunkdl.slides.tissue.detectors.grey_otsu import GreyOtsu
from chunkdl.slides.tissue.detectors.hsv_range import HsvRange
from chunkdl.slides.tissue.detectors.named import MOST_DEPTH, NAMES, detector_of
from chunkdl.slides.tissue.detectors.otsu import Otsu
from chunkdl.slides.tissue.detectors.own_tissue import OwnTissue
from chunkdl.slides.tissue.detectors.pen_areas import PenAreas
from tests.slides.tissue.thumbnails import clouds, stained


def everything(rgb: Pixels) -> Cells:
    return np.ones(rgb.shape[:2], np.bool_)


EACH: tuple[TissueDetector, ...] = (
    *(Otsu(), HsvRange(), GreyOtsu(), Clam(), Clam(a_t=0, a_h=0), Clam(use_otsu=True, a_t=0)),
    *(Clam(15, 11, 2, a_t=1, a_h=1, max_n_holes=2), PenAreas(), BlurredAreas()),
    *(TissueAll(Otsu(), HsvRange()), TissueAny(Clam(), GreyOtsu())),
    *(TissueWithout(Otsu(), PenAreas(), BlurredAreas()), OwnTissue(everything, "1")),
)


@pytest.mark.parametrize("detector", EACH, ids=repr)
@given(
    rgb=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)), fill=st.nothing()
    )
)
def test_any_thumbnail_gives_bools_of_its_shape_and_stays_unchanged(
    detector: TissueDetector, rgb: Pixels
) -> None:
    """From one pixel up, with any content, twice the same, and after a journey as well."""
    before = rgb.copy()
    found = find_tissue(detector, rgb, Scale(16, 16, 8.0))
    assert found.dtype == np.bool_
    assert found.shape == rgb.shape[:2]
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(find_tissue(detector, rgb, Scale(16, 16, 8.0)), found)


@pytest.mark.parametrize("detector", EACH, ids=repr)
def test_a_detector_arrives_as_it_was_sent(detector: TissueDetector) -> None:
    """Its key and its answers."""
    other: TissueDetector = pickle.loads(cloudpickle.dumps(detector))
    rgb = clouds(90, 80, 4)
    assert other.key == detector.key
    assert repr(other) == repr(detector)
    np.testing.assert_array_equal(other(rgb), detector(rgb))


@pytest.mark.parametrize("side", [1, 2, 200])
@pytest.mark.parametrize("grey", [0, 255])
@pytest.mark.parametrize("name", ["otsu", "hsv", "clam", "clam-bwh-biopsy", "wsistream-hsv"])
def test_plain_white_and_plain_black_have_no_tissue(name: str, grey: int, side: int) -> None:
    """Both are what files are filled with; only `wsistream-otsu` takes black for tissue."""
    rgb = np.full((side, side, 3), grey, np.uint8)
    assert not find_tissue(detector_of(name), rgb, Scale()).any()


EVERY_PIECE: dict[str, Any] = {"a_t": 0, "a_h": 0, "max_n_holes": 10**6}


@pytest.mark.parametrize(
    "detector",
    [
        *(Otsu(), HsvRange(), GreyOtsu(min_area_ratio=0), PenAreas(), BlurredAreas()),
        *(Clam(**EVERY_PIECE), Clam(use_otsu=True, **EVERY_PIECE)),
    ],
    ids=repr,
)
def test_rows_that_are_worked_in_blocks_have_no_seams(detector: TissueDetector) -> None:
    """One thumbnail many times below itself: blocks end inside of some of the copies, and all but
    the outermost are alike."""
    rgb = clouds(60, 2000, 6)
    copies = 2 * 2**20 // rgb[..., 0].size
    found = find_tissue(detector, np.concatenate([rgb] * copies), Scale())
    by_copy = found.reshape(copies, *rgb.shape[:2])[2:-2]
    assert 0 < by_copy.mean() < 1 or isinstance(detector, PenAreas)
    assert (by_copy == by_copy[0]).all()


@pytest.mark.parametrize(
    "detector",
    [
        *(GreyOtsu(), Clam(a_t=0, a_h=0), Clam(use_otsu=True)),
        TissueWithout(Otsu(), PenAreas(), BlurredAreas()),
    ],
    ids=repr,
)
def test_the_largest_thumbnail_takes_bounded_memory(detector: TissueDetector) -> None:
    """4096 x 4096 pixels of noise, which has the most pieces: with the thumbnail's 48 MiB within
    the 256 MiB that a loader has for it."""
    rgb = np.random.default_rng(1).integers(0, 256, (4096, 4096, 3), np.uint8)
    find_tissue(detector, rgb[:50, :50], Scale())
    tracemalloc.start()
    try:
        find_tissue(detector, rgb, Scale())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 208 * 2**20


def test_all_any_and_without_are_set_operations() -> None:
    """Of masks, in any depth."""
    rgb = clouds(120, 120, 9)
    otsu, grey, pen = Otsu(), GreyOtsu(), PenAreas(smallest=0)
    a, b, c = otsu(rgb), grey(rgb), pen(rgb)
    assert (a != b).any()
    np.testing.assert_array_equal(TissueAll(otsu, grey)(rgb), a & b)
    np.testing.assert_array_equal(TissueAny(otsu, grey)(rgb), a | b)
    np.testing.assert_array_equal(TissueWithout(otsu, grey)(rgb), a & ~b)
    np.testing.assert_array_equal(TissueWithout(otsu, grey, pen)(rgb), a & ~b & ~c)
    nested = TissueAny(TissueWithout(otsu, grey), TissueAll(otsu, grey))
    np.testing.assert_array_equal(nested(rgb), a)


def test_combined_detectors_pass_the_scale_on() -> None:
    """To those that need it, in any depth."""
    rgb = stained(np.ones((8, 8), np.bool_))
    clam = Clam(mthresh=1, close=0, a_t=1, ref_patch_size=64)
    combined = TissueAny(TissueAll(clam), TissueWithout(clam, PenAreas()))
    assert find_tissue(combined, rgb, Scale(16, 16)).all()
    assert not find_tissue(combined, rgb, Scale(8, 8)).any()


def test_keys_tell_apart_all_detectors_and_how_they_are_combined() -> None:
    """They name masks on disk."""
    many: list[TissueDetector] = [
        *EACH,
        *(TissueAll(Otsu()), TissueAny(Otsu()), TissueWithout(Otsu(), Otsu())),
        *(TissueAll(HsvRange(), Otsu()), TissueAll(TissueAll(Otsu()), HsvRange())),
        *(TissueWithout(Otsu(), PenAreas(), HsvRange()), TissueWithout(HsvRange(), Otsu())),
        *(PenAreas(("blue",)), PenAreas(margin=3), PenAreas(smallest=3), PenAreas(diff_thresh=6)),
        *(BlurredAreas(2), BlurredAreas(threshold=0.1), GreyOtsu(5), GreyOtsu(closing=3)),
        *(GreyOtsu(min_area_ratio=0), Clam(1), Clam(mthresh=3), Clam(close=1), Clam(a_t=1)),
        *(Clam(a_h=1), Clam(max_n_holes=1), Clam(ref_patch_size=256), Clam(use_otsu=True)),
        *(OwnTissue(everything, "2"), OwnTissue(everything, "1", "another")),
    ]
    assert len({one.key for one in many}) == len(many)
    # Accidental changes would recompute all masks of all users or, worse, mix them up.
    assert Clam().key == (
        "clam/1 Clam(sthresh=8, mthresh=7, close=4, use_otsu=False, a_t=100.0, a_h=16.0, "
        "max_n_holes=8, ref_patch_size=512)"
    )
    assert PenAreas(("blue", "red")).key == PenAreas(["red", "blue"]).key  # type: ignore[arg-type]
    assert BlurredAreas(3).key == BlurredAreas(np.float64(3)).key


@pytest.mark.parametrize(
    ("text", "detector"),
    [
        ('"clam-tcga"', Clam(a_t=16, a_h=4)),
        ('{name = "clam", use_otsu = true, a_t = 4}', Clam(use_otsu=True, a_t=4)),
        ('{name = "all", detectors = ["otsu", "hsv"]}', TissueAll(Otsu(), HsvRange())),
        ('{name = "any", detectors = ["wsistream-otsu"]}', TissueAny(GreyOtsu())),
        (
            '{name = "without", detector = {name = "otsu", closing = 2}, remove = '
            '[{name = "pen", colours = ["green", "blue"], margin = 0}, "blur"]}',
            TissueWithout(Otsu(closing=2), PenAreas(("green", "blue"), margin=0), BlurredAreas()),
        ),
    ],
)
def test_a_file_says_them_all(text: str, detector: TissueDetector) -> None:
    """As TOML; the same tables work in Python."""
    assert checked_detector("tissue", tomllib.loads(f"tissue = {text}")["tissue"]) == detector


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("onnx", "pen", "blur")])
def test_every_name_is_a_detector_or_says_what_it_needs(name: str) -> None:
    """Names of one detector need nothing more; others say which list they need."""
    if name in ("all", "any", "without"):
        with pytest.raises(ConfigError, match="needs a list of detectors"):
            checked_detector("tissue", name)
    else:
        assert checked_detector("tissue", name) is not None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("clem", "no tissue detector 'clem'; choose one of 'otsu', 'hsv', 'clam'"),
        ({"detectors": ["otsu"]}, "no tissue detector None"),
        ({"name": ["all"]}, "no tissue detector"),
        ({"name": "clam", "sat": 1}, "'clam' has no parameter 'sat'; it has sthresh, mthresh"),
        ({"name": "clam", "sthresh": "much"}, "'clam': Expected `int`"),
        ({"name": "all"}, r'needs a list of detectors as detectors: \{name = "all"'),
        ({"name": "all", "detectors": []}, "needs a list of detectors"),
        ({"name": "all", "detectors": "otsu"}, "needs a list of detectors"),
        ({"name": "any", "detectors": [3]}, "3 is no tissue detector"),
        ({"name": "all", "detectors": ["otsu"], "remove": []}, "'all' has no parameter 'remove'"),
        ({"name": "without", "detector": "otsu"}, "needs a list of detectors as remove"),
        ({"name": "without", "remove": ["pen"]}, "None is no tissue detector"),
        (
            {"name": "without", "detector": "otsu", "remove": ["pen"], "less": 1},
            "no parameter 'less'; it has detector and remove",
        ),
        ({"name": "own"}, r"cannot be said in a file.*OwnTissue\(function"),
        ({"name": "pen", "colours": ["black"]}, 'colours must be some of "red"'),
        ({"name": "pen", "colours": []}, "colours must be some"),
        ({"name": "blur", "sigma": 0}, "sigma must be a number from 0.5 to 32"),
        ("pen", r"finds what is no tissue.*remove = \[\"pen\"\]"),
        (BlurredAreas(), r"finds what is no tissue.*TissueWithout\(Otsu\(\), BlurredAreas"),
        (everything, r"is not a detector.*OwnTissue\(function"),
        (Clam, "is not a detector"),
    ],
)
def test_what_is_no_detector_is_refused_with_what_to_do(given: Any, told: str) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=told):
        checked_detector("tissue", given)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TissueAll(),
        lambda: TissueAny(everything),  # type: ignore[arg-type]
        lambda: TissueWithout(Otsu()),
        lambda: TissueWithout(everything, Otsu()),  # type: ignore[arg-type]
        lambda: TissueWithout(Otsu(), Clam),  # type: ignore[arg-type]
    ],
)
def test_what_is_combined_has_to_be_detectors(wrong: Any) -> None:
    """Where it is given, and not in a loader."""
    with pytest.raises(ConfigError, match="is made of detectors, such as Otsu"):
        wrong()


def test_a_network_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is asked for, and not in a loader."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'chunkdl\[onnx\]'"):
        checked_detector("tissue", {"name": "onnx", "path": "a.onnx", "mpp": 8.0})


def test_detectors_cannot_lie_in_each_other_for_ever() -> None:
    """A file from outside cannot make a deep one."""
    deep: Any = "otsu"
    for _ in range(MOST_DEPTH + 1):
        deep = {"name": "all", "detectors": [deep]}
    with pytest.raises(ConfigError, match="more than 8 deep"):
        detector_of(deep)
