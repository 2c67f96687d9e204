"""What label masks are over SmallChunks, for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chunkdl.commands.inspect_slides import colour_of_class, sample
from chunkdl.commands.labelled_patches import GAP_PX, labelled_patches
from chunkdl.dataset.patients import Dataset
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box, geojson_of

SIDE = 64


def test_each_smallchunk_is_beside_itself_with_the_colours_of_its_classes(tmp_path: Path) -> None:
    """To the pixel where it is shown as it is; what is not annotated is left as it was."""
    write_coordinate_slide(str(tmp_path / "one.tif"), 900, 700, tile=128)
    shapes = box(100, 90, 300, 500, "tumor"), box(400, 200, 300, 300, "stroma")
    (tmp_path / "one.geojson").write_bytes(geojson_of(*shapes))
    classes = np.zeros((700, 900), np.uint8)
    classes[90:590, 100:400], classes[200:500, 400:700] = 2, 1
    arguments = Arguments(
        smallchunk_size=SIDE,
        bigchunk_size=256,
        num_bigchunks=1,
        memory_limit="64MiB",
        tissue="none",
        annotations=str(tmp_path),
    )
    service = configure(Dataset.from_slides(tmp_path), arguments)
    config = service.stream
    with OpenSlides(service.slides, config, None) as slides:
        planned = slides.get(0).at(config.resolution.examples[0])
        regions = [sample(planned, config, ordinal, 4) for ordinal in range(4)]
        sheet = labelled_patches(planned, regions, colour_of_class, 700)
        assert labelled_patches(planned, [], colour_of_class, 700) is None
    assert sheet is not None
    shown = np.asarray(sheet).astype(float)
    each = 2 * SIDE + 3 * GAP_PX
    corners = [
        corner
        for one in regions
        for corner in zip(one.draws.x.tolist(), one.draws.y.tolist(), strict=True)
    ]
    for number, (x, y) in enumerate(corners):
        row, column = divmod(number, (700 + 2 * GAP_PX) // each)
        top, left = row * (SIDE + 2 * GAP_PX) + GAP_PX, column * each
        plain = shown[top : top + SIDE, left : left + SIDE]
        right = left + SIDE + GAP_PX // 2
        coloured = shown[top : top + SIDE, right : right + SIDE]
        here = classes[y : y + SIDE, x : x + SIDE]
        assert np.array_equal(coloured[here == 0], plain[here == 0])
        for index in (0, 1):
            mixed = 0.6 * plain[here == index + 1] + 0.4 * np.array(colour_of_class(index))
            assert np.abs(coloured[here == index + 1] - mixed).max(initial=0) <= 1
    assert {int(one) for x, y in corners for one in np.unique(classes[y : y + SIDE, x : x + SIDE])}
