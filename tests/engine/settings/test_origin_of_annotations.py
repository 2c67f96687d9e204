"""Where coordinates of annotations begin on slides that state a scanned part, as QuPath sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chunkdl import Dataset
from chunkdl.annotations.kept_file import kept_annotations
from chunkdl.annotations.options import ReadingOptions
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.errors import ConfigError
from tests.annotations.boxes import box, geojson_of

CORNER = (17792, 66496)
"""Of the scanned part of the slide, as OpenSlide says it."""


@pytest.fixture
def configured(slides_folder: Path, tmp_path: Path) -> Callable[..., EngineConfig]:
    """The configuration of a stream over a SCN file, read by OpenSlide."""
    path = slides_folder / "gallbladder-leica-20x.scn"

    def configured(x: float, y: float, **more: Any) -> EngineConfig:
        (tmp_path / f"{path.stem}.geojson").write_bytes(geojson_of(box(x, y, 3000, 2000, "tumor")))
        return configure(
            Dataset.from_slides(path),
            Arguments(annotations=str(tmp_path), reader="openslide", **more),
        )

    return configured


def test_coordinates_of_the_scanned_part_are_those_of_level_0_moved(
    configured: Callable[..., EngineConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Which of them a file has is said; where it is not, a warning names the slide."""
    whole = configured(CORNER[0] + 500, CORNER[1] + 700, annotation_reading={"origin": "level0"})
    part = configured(500, 700, annotation_reading={"origin": "scanned"})
    assert "scanned part begins" not in caplog.text
    assert _shapes(whole) == _shapes(part)
    silent = configured(CORNER[0] + 500, CORNER[1] + 700)
    assert "gallbladder-leica-20x.scn states that its scanned part begins at" in caplog.text
    assert _shapes(silent) == _shapes(whole)


def _shapes(config: EngineConfig) -> list[list[float]]:
    found = kept_annotations(config.slides[0].annotations)
    assert found is not None
    return [ring.tolist() for ring in found.rings_of(0)]


def test_another_origin_is_refused() -> None:
    """With the choices."""
    with pytest.raises(ConfigError, match="origin='bounds' must be 'level0' or 'scanned'"):
        ReadingOptions(origin="bounds")  # type: ignore[arg-type]
