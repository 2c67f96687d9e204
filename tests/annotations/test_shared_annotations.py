"""The annotations of the real slides, each in three formats: one raster."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from chunkdl.annotations.options import ReadingOptions
from chunkdl.annotations.rasterise import rasterise
from chunkdl.annotations.reading import annotations_of_geojson, read_annotations
from chunkdl.annotations.shapes import UNITS, Annotations
from chunkdl.annotations.sources import file_of_each_slide, files_below
from chunkdl.slides.readers.registry import open_slide
from tests.annotations.drawings import feature

pytestmark = pytest.mark.slides


def outlines_only(annotations: Annotations) -> Annotations:
    """Without holes."""
    outer = [annotations.rings_of(at)[0] for at in range(len(annotations))]
    return annotations_of_geojson([feature(ring) for ring in outer], "the outlines")


def test_all_files_in_their_three_formats_give_the_same_raster(slides_folder: Path) -> None:
    """GeoJSON and ASAP with holes; the tables have outer rings only, as their page says."""
    files = sorted((slides_folder / "annotations").glob("*.geojson"))
    assert len(files) == 8
    holes = 0
    for file in files:
        geojson, asap, table = (
            read_annotations(file.with_suffix(suffix)) for suffix in (".geojson", ".xml", ".csv")
        )
        assert geojson.notes == asap.notes == table.notes == ()
        right, bottom = (geojson.boxes[:, 2:].max(axis=0) // UNITS).tolist()
        for downsample in (3.7, 16):
            size = (int(right / downsample) + 9, int(bottom / downsample) + 9)
            rasters = [
                rasterise(one, downsample=downsample, origin=(-3, -3), size=size) != 0
                for one in (geojson, asap, outlines_only(geojson), table)
            ]
            assert rasters[0].any()
            np.testing.assert_array_equal(rasters[0], rasters[1])
            np.testing.assert_array_equal(rasters[2], rasters[3])
            holes += int((rasters[0] != rasters[2]).any())
    assert holes >= 4


def test_every_slide_finds_its_file_by_name(slides_folder: Path) -> None:
    """Whatever its suffix; all that is drawn lies on it, and three formats need a choice."""
    files = files_below(str(slides_folder / "annotations"))
    stems = {Path(file).stem for file in files}
    names = sorted(path.name for path in slides_folder.iterdir() if path.is_file())
    slides = [
        str(slides_folder / name) for name in names if any(name.startswith(s + ".") for s in stems)
    ]
    found = file_of_each_slide(slides, files, ReadingOptions(format="geojson"))
    assert len(found) == 8
    for slide, file in zip(slides, found, strict=True):
        assert file is not None
        with closing(open_slide(slide)) as opened:
            level = opened.info.levels[0]
        annotations = read_annotations(file, size=(level.width, level.height), slide=slide)
        assert annotations.notes == ()
