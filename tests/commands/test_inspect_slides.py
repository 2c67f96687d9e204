"""The pictures show what a stream over the slide really reads."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chunkdl import Dataset, HsvShare, LightDL, OwnFilter, Patient, Record
from chunkdl.commands.inspect_slides import (
    COLOURS,
    MARGIN_PX,
    OUTLINE,
    Look,
    _arguments,
    _refused,
    calls_for_reuse,
    inspect_slide,
    sample,
)
from chunkdl.commands.main import main
from chunkdl.engine.config import EngineConfig
from chunkdl.engine.settings.configure import configure
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.engine.work.planned_slide import PlannedSlide
from chunkdl.errors import NothingPassesError
from chunkdl.slides.readers.registry import open_slide
from chunkdl.slides.slide import Pixels
from chunkdl.slides.synthetic.writing import write_tissue_slide
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.mask import compute_mask

WIDTH, HEIGHT = 1200, 1000
LOOK = Look(smallchunk_size=64, bigchunk_size=384, seed=5, windows=4)


@pytest.fixture(autouse=True)
def own_mask_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave the user's mask cache alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic slide."""
    path = tmp_path_factory.mktemp("slides") / "tissue.tif"
    write_tissue_slide(path, WIDTH, HEIGHT, seed=3)
    return path


@pytest.fixture
def planned(slide: Path) -> Iterator[tuple[PlannedSlide, EngineConfig]]:
    """The slide as the pictures' code opens it, and the configuration."""
    service = configure(Dataset.from_slides(slide), _arguments(LOOK))
    with OpenSlides(service.slides, service.stream, None) as slides:
        yield slides.get(0).at(service.stream.resolution.examples[0]), service


def pixels_of(picture: Path) -> Pixels:
    """The pixels of a PNG."""
    with Image.open(picture) as image:
        return np.asarray(image)


def test_the_samples_are_those_of_the_stream(
    planned: tuple[PlannedSlide, EngineConfig], slide: Path
) -> None:
    """LightDL on this slide delivers exactly the positions that are drawn, and as many."""
    calls = calls_for_reuse(*planned)
    shown = {}
    for ordinal in range(LOOK.windows):
        draws = sample(planned[0], planned[1].stream, ordinal, calls).draws
        for call, (x, y) in enumerate(zip(draws.x.tolist(), draws.y.tolist(), strict=True)):
            shown[ordinal, call] = (x, y)
    arguments = {"smallchunk_size": 64, "bigchunk_size": 384, "num_bigchunks": 2}
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    with LightDL(Dataset.from_slides(slide), batch_size=16, seed=LOOK.seed, **arguments) as loader:  # type: ignore[arg-type]
        while max(seen, default=(0, 0))[0] < LOOK.windows + 1:
            batch = loader.next_batch(60)
            names = ("bigchunk", "call", "x", "y")
            for ordinal, call, x, y in zip(*(batch[name].tolist() for name in names), strict=True):
                seen[ordinal, call] = (x, y)
        settled = loader.stats(60).smallchunks_per_bigchunk

    assert settled == calls
    compared = {key: place for key, place in seen.items() if key in shown}
    assert len(compared) > 2 * calls
    assert compared == {key: shown[key] for key in compared}


def test_the_outline_follows_the_mask_and_windows_lie_where_they_are(
    slide: Path, tmp_path: Path
) -> None:
    """The border of a given mask, and the edges of the first window, are at their pixels."""
    mask = np.zeros((10, 12), np.bool_)
    mask[2:6, 2:7] = True
    record = Record("", str(slide), {"tissue_mask": mask})
    patient = Patient(0, {"slide": record}, name="square")
    picture = tmp_path / "made" / "square.png"
    look = Look(smallchunk_size=64, bigchunk_size=384, windows=1, positions=1)

    assert inspect_slide(patient, look, picture).problem is None
    pixels = pixels_of(picture)[MARGIN_PX:, MARGIN_PX:][:HEIGHT, :WIDTH]
    green = (pixels == OUTLINE).all(axis=-1)
    rows, columns = np.nonzero(green)
    assert (rows.min(), rows.max()) == (199, 600)
    assert (columns.min(), columns.max()) == (199, 700)
    assert not green[220:580, 220:680].any()

    service = configure(Dataset("one", [patient]), _arguments(look))
    with OpenSlides(service.slides, service.stream, None) as slides:
        planned = slides.get(0).at(service.stream.resolution.examples[0])
        window = sample(planned, service.stream, 0, 1).window
    middle = (max(window.y, 0) + min(window.y + window.side_px, HEIGHT)) // 2
    left = max(1, window.x)
    assert (pixels[middle, left : left + 2] == COLOURS[0]).all()


@pytest.mark.parametrize(
    "tissue",
    [
        "clam-bwh-biopsy",
        '{name = "any", detectors = ["wsistream-otsu", {name = "clam", a_t = 0.1}]}',
    ],
)
def test_every_detector_can_be_drawn_as_a_file_says_it(
    slide: Path, tmp_path: Path, tissue: str
) -> None:
    """By name, and as a table of TOML; the outline is that of its mask."""
    out = tmp_path / "out"
    sizes = ["--smallchunk-size", "64", "--bigchunk-size", "384", "--windows", "1"]
    assert main(["inspect", str(slide), "--out", str(out), "--tissue", tissue, *sizes]) == 0
    pixels = pixels_of(out / f"{slide.name}.png")[MARGIN_PX:, MARGIN_PX:][:HEIGHT, :WIDTH]
    opened = open_slide(slide)
    detector = detector_of(tomllib.loads(f"one = {quoted(tissue)}")["one"])
    cells = compute_mask(opened, detector).cells
    opened.close()
    rows = np.arange(HEIGHT) * cells.shape[0] // HEIGHT
    columns = np.arange(WIDTH) * cells.shape[1] // WIDTH
    large = cells[rows[:, None], columns]
    inner = large[1:-1, 1:-1]
    border = np.zeros_like(inner)
    for near in (large[:-2, 1:-1], large[2:, 1:-1], large[1:-1, :-2], large[1:-1, 2:]):
        border |= near != inner
    green = (pixels == OUTLINE).all(axis=-1)[1:-1, 1:-1]
    assert border.sum() > 1000
    assert green[border].mean() > 0.6
    assert not green[~border].any()


def quoted(tissue: str) -> str:
    return tissue if tissue.startswith("{") else f'"{tissue}"'


def test_a_slide_without_tissue_is_drawn_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture shows why there is nothing to sample; stderr says so and the status is 2."""
    glass = tmp_path / "glass.tif"
    Image.new("RGB", (600, 500), (240, 240, 240)).save(glass)
    out = tmp_path / "out"

    assert main(["inspect", str(glass), "--smallchunk-size", "64", "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"{out / 'glass.tif.png'}\n"
    assert "no place for a SmallChunk" in shown.err
    with Image.open(out / "glass.tif.png") as image:
        assert image.width >= 600


def test_what_a_pixel_filter_refuses_is_in_the_picture(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only accepted positions are drawn; a slide of which nothing passes is drawn and reported."""
    out = tmp_path / "out"
    given = ["inspect", str(slide), "--smallchunk-size", "64", "--bigchunk-size", "256"]
    assert main([*given, "--out", str(out), "--pixel-filter", "midnight"]) == 0
    service = configure(
        Dataset.from_slides(slide),
        _arguments(dataclasses.replace(LOOK, pixel_filter="midnight")),
    )
    out_px = np.empty((64, 64, 3), np.uint8)
    with OpenSlides(service.slides, service.stream, None) as slides:
        planned = slides.get(0).at(service.stream.resolution.examples[0])
        draws = sample(planned, service.stream, 0, 9).draws
        for x, y in zip(draws.x.tolist(), draws.y.tolist(), strict=True):
            planned.slide.read_into(out_px, 0, x, y)
            assert HsvShare()(out_px)
        assert "refused" in _refused(slides)
    black = OwnFilter(lambda rgb: False, version="1", title="black")
    found = inspect_slide(
        Dataset.from_slides(slide)[0],
        dataclasses.replace(LOOK, pixel_filter=black),  # type: ignore[arg-type]
        tmp_path / "none.png",
    )
    assert isinstance(found.problem, NothingPassesError)
    assert (tmp_path / "none.png").exists()


def test_one_bad_slide_does_not_hide_the_others(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged file is told in one line; the slides before and after it are drawn."""
    bad = tmp_path / "bad.svs"
    bad.write_bytes(b"no slide")
    twin = tmp_path / "tissue.tif"
    twin.symlink_to(slide)
    out = tmp_path / "out"

    assert main(["inspect", str(slide), str(bad), str(twin), "--out", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "bad.svs" in errors[0]
    assert sorted(path.name for path in out.iterdir()) == ["tissue.tif-2.png", "tissue.tif.png"]


def test_a_setting_that_fits_no_slide_ends_at_once(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument is told once, not once per slide, and nothing is drawn."""
    out = tmp_path / "out"

    assert main(["inspect", str(slide), str(slide.parent), "--seed", "-1", "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


@pytest.mark.slides
@pytest.mark.parametrize(
    "name",
    [
        "CMU-1-Small-Region.svs",
        "CMU-1-Small-Region-dicom",
        "stomach-he-20x.ndpi",
        "lung-scc-biopsy-gt450-20x.svs",
    ],
)
def test_real_slides_are_drawn(
    name: str, slides_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of file gives a picture with the outline and all windows on it."""
    assert main(["inspect", str(slides_folder / name), "--out", str(tmp_path)]) == 0
    (picture,) = tmp_path.glob("*.png")
    assert capsys.readouterr().out == f"{picture}\n"
    colours = {tuple(colour) for colour in pixels_of(picture).reshape(-1, 3).tolist()}
    assert {OUTLINE, *COLOURS} <= colours
