"""The DICOM reader on real slides: the pixels of every level and the facts are OpenSlide's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import openslide
import pytest

from chunkdl.slides.readers.dicom import open_dicom, structure_of

pytestmark = pytest.mark.slides

FOLDERS = (
    "CMU-1-Small-Region-dicom",
    "endometrium-dicom",
    "endometrium-dicom-concat",
    "fistula-dicom-sparse",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that another run has kept is used."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("name", FOLDERS)
def test_every_pixel_of_every_level_is_that_of_openslide(name: str, slides_folder: Path) -> None:
    """With a difference of 0; what OpenSlide shows transparent is white."""
    files = sorted((slides_folder / name).glob("level-*.dcm"))
    with closing(open_dicom(slides_folder / name)) as slide, openslide.OpenSlide(files[0]) as other:
        levels = slide.info.levels
        assert [(level.width, level.height) for level in levels] == list(other.level_dimensions)
        np.testing.assert_allclose([level.downsample for level in levels], other.level_downsamples)
        assert slide.info.mpp == pytest.approx((float(other.properties["openslide.mpp-x"]),) * 2)
        for index, level in enumerate(levels):
            ours = np.full((level.height, level.width, 3), 137, np.uint8)
            slide.read_into(ours, index, 0, 0)
            rgba = np.asarray(other.read_region((0, 0), index, (level.width, level.height)))
            theirs = np.where(rgba[..., 3:] == 255, rgba[..., :3], 255)
            assert set(np.unique(rgba[..., 3])) <= {0, 255}
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", FOLDERS)
def test_each_file_of_a_slide_opens_the_slide(name: str, slides_folder: Path) -> None:
    """Also a part of a concatenation, a coarse level and a label."""
    expected = structure_of(slides_folder / name).images
    for file in (slides_folder / name).glob("*.dcm"):
        assert structure_of(file).images == expected


def test_labels_overviews_and_thumbnails_have_their_roles(slides_folder: Path) -> None:
    """The thumbnail has the aspect of the slide and is not a level all the same."""
    structure = structure_of(slides_folder / "endometrium-dicom")
    assert {page.name: (page.role, page.level) for page in structure.pages} == {
        "label.dcm": ("label", None),
        "level-0.dcm": ("level", 0),
        "level-1.dcm": ("level", 1),
        "level-2.dcm": ("level", 2),
        "overview.dcm": ("macro", None),
        "thumbnail.dcm": ("thumbnail", None),
    }
    (image,) = structure.images
    assert image.magnification == 20
    assert image.mpp == pytest.approx((0.5044, 0.5044))


def test_what_a_sparse_slide_has_not_is_not_scanned(slides_folder: Path) -> None:
    """144 of its 192 frames exist."""
    with closing(open_dicom(slides_folder / "fistula-dicom-sparse")) as slide:
        scanned = slide.scanned()
        assert scanned is not None
        assert scanned.cells.shape == (12, 16)
        assert scanned.cells.sum() == 144


def test_the_colour_profile_is_that_of_the_file(slides_folder: Path) -> None:
    """As OpenSlide gives it."""
    folder = slides_folder / "endometrium-dicom"
    with (
        closing(open_dicom(folder)) as slide,
        openslide.OpenSlide(folder / "level-0.dcm") as other,
    ):
        assert slide.icc_profile is not None
        assert other.color_profile is not None
        assert slide.icc_profile == other.color_profile.tobytes()
