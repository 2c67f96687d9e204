"""The audit of a slide: every place is counted once, under the first rule that takes it away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chunkdl import LightDL
from chunkdl.commands.inspect_slides import Look, _arguments, _of_class, _with_classes_of, sample
from chunkdl.commands.main import main
from chunkdl.commands.refused_places import ACCEPTED, ELSEWHERE, NO_TISSUE, audit_of, codes_of
from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.engine.settings.arguments import Arguments
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.slides.synthetic.writing import write_coordinate_slide
from tests.annotations.boxes import box, geojson_of
from tests.conftest import ragged_mask

WIDTH, HEIGHT, SIDE = 700, 560, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide with two annotated classes."""
    found = tmp_path_factory.mktemp("audited")
    write_coordinate_slide(str(found / "one.tif"), WIDTH, HEIGHT, tile=128)
    shapes = box(40, 50, 300, 200, "tumor"), box(300, 200, 350, 300, "stroma")
    (found / "one.geojson").write_bytes(geojson_of(*shapes))
    return found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"roi": {"where": "inside", "share": 0.7}},
        {"roi": {"where": "outside", "classes": ["tumor"]}},
        {"regions": {"tumor": 1, "stroma": 2}},
        {"regions": {"tumor": 1}, "roi": "inside"},
    ],
    ids=["all", "inside", "outside", "regions", "both"],
)
def test_every_place_is_a_position_or_was_taken_away_by_one_rule(
    folder: Path, given: dict[str, Any]
) -> None:
    """Against all corners of the slide, one by one."""
    mask = ragged_mask(3)
    record = Record("/", str(folder / "one.tif")[1:], {"tissue_mask": mask})
    dataset = Dataset("one", [Patient(0, {"slide": record})])
    annotations = str(folder) if given else None
    service = configure(
        dataset,
        Arguments(
            smallchunk_size=SIDE,
            bigchunk_size=128,
            num_bigchunks=1,
            memory_limit="64MiB",
            annotations=annotations,
            **given,
        ),
    )
    config = service.stream
    with OpenSlides(service.slides, config, None) as slides:
        opened = slides.get(0)
        planned = opened.at(config.resolution.examples[0])
        audit = audit_of(planned, config)
        codes, step = codes_of(planned, config)
        y, x = (part.ravel() for part in np.mgrid[: HEIGHT - SIDE + 1, : WIDTH - SIDE + 1])
        by_tissue = planned.positions
        if given:
            plain = configure(dataset, Arguments(smallchunk_size=SIDE, bigchunk_size=128))
            with OpenSlides(plain.slides, plain.stream, None) as others:
                by_tissue = others.get(0).at(config.resolution.examples[0]).positions
        has_tissue = by_tissue.hold(x, y)
        accepted = np.zeros_like(has_tissue)
        classes = range(2) if "regions" in given else (-1,)
        names = () if config.annotations is None else config.annotations.names
        for index in classes:
            if index < 0 or names[index] in given["regions"]:
                accepted |= opened.at(config.resolution.examples[0], index).positions.hold(x, y)
    assert audit.places == len(x)
    assert audit.lack_tissue == int((~has_tissue).sum())
    assert audit.positions == int((has_tissue & accepted).sum())
    assert audit.places == audit.lack_tissue + audit.lie_elsewhere + audit.positions
    assert 0 < audit.positions < audit.places
    assert (audit.lie_elsewhere > 0) == bool(given)
    # The dots are a sample of the same.
    kinds = {ACCEPTED, NO_TISSUE, ELSEWHERE} if given else {ACCEPTED, NO_TISSUE}
    assert set(np.unique(codes).tolist()) == kinds
    assert float((codes == ACCEPTED).mean()) == pytest.approx(
        audit.positions / audit.places, abs=0.06
    )
    assert step == pytest.approx(WIDTH / codes.shape[1])


def test_inspect_draws_classes_and_tells_what_each_rule_takes_away(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For each slide, and for all together."""
    write_coordinate_slide(str(tmp_path / "two.tif"), WIDTH, HEIGHT, slide_id=1, tile=128)
    (tmp_path / "one.tif").symlink_to(folder / "one.tif")
    given = ["inspect", str(tmp_path), "--annotations", str(folder), "--tissue", "none"]
    given += ["--smallchunk-size", "32", "--bigchunk-size", "128", "--out", str(tmp_path / "out")]
    assert main([*given, "--audit", "--regions", "tumor=1,stroma=2"]) == 0
    shown = capsys.readouterr()
    assert "one.tif.png\n  353,901 places, 0.0% lack tissue, " in shown.out
    assert "lie outside of what is annotated" in shown.out
    # The other one is drawn too, though nothing is annotated on it.
    assert "two.tif.png\n  353,901 places, 0.0% lack tissue, 353,901 positions" in shown.out
    assert "all slides\n  707,802 places" in shown.out
    with pytest.raises(SystemExit):
        main([*given, "--regions", "tumor=many"])
    assert "must be classes with weights, such as tumor=1" in capsys.readouterr().err


def test_the_first_bigchunks_of_a_stream_that_draws_classes_are_those_of_the_stream(
    folder: Path,
) -> None:
    """Each from the class that comes with it there, also where the slide lacks one of them."""
    (patient,) = Dataset.from_slides(folder)
    regions = {"tumor": 1, "stroma": 3, "necrosis": 5}
    stream: dict[str, Any] = {
        "smallchunk_size": SIDE,
        "bigchunk_size": 128,
        "tissue": "none",
        "annotations": str(folder),
        "seed": 4,
    }
    look, missing = _with_classes_of(patient, Look(**stream, regions=regions))
    assert missing == ("this slide has no necrosis",)
    assert look.regions == {"tumor": 1, "stroma": 3}
    service = configure(Dataset("inspect", [patient]), _arguments(look))
    with OpenSlides(service.slides, service.stream, None) as slides:
        planned = slides.get(0).at(service.stream.resolution.examples[0])
        shown = [
            sample(_of_class(planned, service, ordinal), service.stream, ordinal, 1).draws
            for ordinal in range(8)
        ]
    expected = {ordinal: (int(one.x[0]), int(one.y[0])) for ordinal, one in enumerate(shown)}
    with LightDL(
        Dataset("inspect", [patient]),
        batch_size=16,
        num_bigchunks=16,
        smallchunks_per_bigchunk=1,
        regions=look.regions,
        num_loaders=1,
        num_collectors=1,
        **stream,
    ) as loader:
        batch = loader.next_batch(60)
    for ordinal, x, y in zip(
        *(batch[name].tolist() for name in ("bigchunk", "x", "y")), strict=True
    ):
        assert expected.get(ordinal, (x, y)) == (x, y)


def test_a_slide_without_annotations_is_drawn_all_the_same(folder: Path, tmp_path: Path) -> None:
    """And the picture says so."""
    write_coordinate_slide(str(tmp_path / "other.tif"), WIDTH, HEIGHT, slide_id=1, tile=128)
    (patient,) = Dataset.from_slides(tmp_path)
    look, missing = _with_classes_of(patient, Look(annotations=str(folder), roi="inside"))
    assert (look.annotations, look.roi) == (None, "ignore")
    assert missing == ("no file of annotations has the name of this slide",)
