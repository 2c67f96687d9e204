"""The numbers of the page on tissue are those that the detectors find today."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from chunkdl.slides.tissue.detectors.detector import find_tissue
from chunkdl.slides.tissue.detectors.named import NAMES, detector_of

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "tissue.md").read_text()


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    path = REPOSITORY / "docs" / "tissue_pictures.py"
    specification = importlib.util.spec_from_file_location("tissue_pictures", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Data classes look their module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tissue_pictures", module)
        specification.loader.exec_module(module)
    return module


def test_every_name_is_on_the_page() -> None:
    """In the table of detectors."""
    missing = [name for name in NAMES if f"`{name}`" not in PAGE]
    assert missing == []


def test_made_scenes_are_found_as_the_page_says(pictures: ModuleType) -> None:
    """Its sentences on what goes wrong, in numbers."""
    scenes = {scene.name: scene for scene in pictures.scenes()}

    def share(scene: str, name: str) -> float:
        one = scenes[scene]
        return float(find_tissue(detector_of(name), one.rgb, one.scale).mean())

    whole = share("H&E", "otsu")
    assert share("pale", "otsu") > 0.9 * whole
    assert share("pale", "clam-tcga") > 0.9 * whole
    assert share("pale", "clam-bwh-biopsy") == 0
    assert share("fat", "otsu") < 0.6 * whole
    assert share("fat", "clam-tcga") == 0
    assert share("pen", "pen") > 0.08
    assert share("H&E", "pen") == share("IHC", "pen") == 0
    assert share("dark edge", "otsu") < 1.02 * whole < share("dark edge", "clam-bwh-biopsy")
    assert share("fluorescence", "wsistream-otsu") > 1 - whole
    assert share("fluorescence", "clam-tcga") == 1
    assert abs(share("fluorescence", "otsu") - whole) < 0.02
    assert share("IHC", "hsv") < 0.9 * share("IHC", "otsu")
    assert share("out of focus", "blur") > share("H&E", "blur") + 0.1
    assert share("glass only", "otsu") == 0
    assert share("glass only", "wsistream-otsu") > 0.9


@pytest.mark.slides
@pytest.mark.parametrize(
    "file",
    [
        *("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif", "hamamatsu-test3-dapi-387.ndpi"),
        *("gallbladder-leica-20x.scn", "stomach-he-20x.ndpi", "lung-scc-biopsy-gt450-20x.svs"),
    ],
)
def test_real_slides_have_the_shares_of_the_page(
    slides_folder: Path, pictures: ModuleType, file: str
) -> None:
    """To the per cent."""
    row = re.search(rf"^\|`{re.escape(file)}`\|(.+)\|$", PAGE, re.MULTILINE)
    assert row is not None
    scene = pictures.slide_scene(slides_folder / file)
    names = (*pictures.TISSUE, *pictures.ARTEFACTS)
    for told, name in zip(row[1].split("|"), names, strict=True):
        share = find_tissue(detector_of(name), scene.rgb, scene.scale).mean()
        assert f"{share:.0%}" == told, name
