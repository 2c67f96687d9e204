"""A network as a tissue detector: tiles without seams, its file in the key, and refusals."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from chunkdl.errors import ConfigError, HookError, SlideError
from chunkdl.slides.slide import Pixels
from chunkdl.slides.tissue.detectors.detector import Cells, Scale
from chunkdl.slides.tissue.detectors.named import detector_of
from chunkdl.slides.tissue.detectors.onnx_tissue import OnnxTissue
from chunkdl.slides.tissue.mask import compute_mask
from tests.slides.tissue.memory_slide import MemorySlide

pytest.importorskip("onnxruntime", reason="onnxruntime is an extra that is not installed")

AT_8 = Scale(16, 16, 8.0, "a.svs")
REACH = 2
"""Of the network below: it sees a square of 5 x 5 pixels."""


def number(field: int, value: int) -> bytes:
    """A whole number in a message of protocol buffers."""
    return varint(field << 3) + varint(value)


def block(field: int, value: bytes | str) -> bytes:
    """A text, an array or a message in a message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    """A TensorProto."""
    dims = b"".join(number(1, side) for side in values.shape)
    return dims + number(2, 1) + block(8, name) + block(9, values.astype("<f4").tobytes())


def shaped(name: str, channels: int) -> bytes:
    """A ValueInfoProto of (1, channels, any, any) float32."""
    sides = [number(1, 1), number(1, channels), block(2, "h"), block(2, "w")]
    shape = b"".join(block(1, side) for side in sides)
    return block(1, name) + block(2, block(1, number(1, 1) + block(2, shape)))


def network(path: Path, weights: npt.NDArray[np.float32], bias: list[float]) -> Path:
    """Write an ONNX file of one convolution that keeps the size; weights (out, 3, 5, 5)."""
    pads = block(1, "pads") + b"".join(number(8, REACH) for _ in range(4)) + number(20, 7)
    node = block(1, "x") + block(1, "w") + block(1, "b") + block(2, "y") + block(4, "Conv")
    node += block(5, pads)
    graph = block(1, node) + block(2, "tiny")
    graph += block(5, tensor("w", weights)) + block(5, tensor("b", np.array(bias, np.float32)))
    graph += block(11, shaped("x", 3)) + block(12, shaped("y", len(weights)))
    model = number(1, 8) + block(7, graph) + block(8, block(1, "") + number(2, 13))
    path.write_bytes(model)
    return path


def mean_of_green(path: Path) -> Path:
    """1 less the mean of green around a pixel."""
    weights = np.zeros((1, 3, 5, 5), np.float32)
    weights[0, 1] = -1 / 25
    return network(path, weights, [1.0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mean_of_green(tmp_path_factory.mktemp("model") / "green.onnx")


def thumbnail(height: int, width: int) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def expected(rgb: Pixels, threshold: float) -> tuple[Cells, Cells]:
    """What the network says, by numpy, and where it is clear; the edge is repeated outwards."""
    green = np.pad(rgb[..., 1].astype(np.float64) / 255, REACH, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(green, (5, 5))
    dark = 1 - windows.mean(axis=(2, 3))
    return dark >= threshold, np.abs(dark - threshold) > 1e-5


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (90, 90), (131, 77)])
def test_tiles_with_overlap_give_what_the_whole_thumbnail_gives(
    model: Path, size: tuple[int, int]
) -> None:
    """No seam: the network sees as far beyond the used part of a tile as it looks."""
    rgb = thumbnail(*size)
    detector = OnnxTissue(str(model), 8.0, tile=48, overlap=REACH)
    cells = detector.find(rgb, AT_8)
    wanted, clear = expected(rgb, 0.5)
    assert cells.shape == size
    np.testing.assert_array_equal(cells[clear], wanted[clear])
    np.testing.assert_array_equal(cells, detector.find(rgb, AT_8))


def test_without_overlap_tiles_have_seams(model: Path) -> None:
    """So the test above can see one."""
    rgb = thumbnail(90, 90)
    cells = OnnxTissue(str(model), 8.0, tile=48, overlap=0).find(rgb, AT_8)
    assert (cells != expected(rgb, 0.5)[0]).any()


@pytest.mark.parametrize("fill", [0, 255])
def test_the_tissue_is_where_it_is_at_any_resolution(model: Path, fill: int) -> None:
    """The thumbnail is shown at the microns of the network, and the answer has its own shape."""
    rgb = np.full((300, 200, 3), 255 - fill, np.uint8)
    rgb[100:200, 50:150] = fill
    detector = OnnxTissue(str(model), 16.0)
    cells = detector.find(rgb, Scale(16, 16, 8.0)) == (fill == 0)
    assert cells[106:194, 56:144].all()
    cells[94:206, 44:156] = False
    assert not cells.any()


def test_the_network_is_shown_its_own_microns(tmp_path: Path) -> None:
    """Lines of one pixel are seen at 8 microns, and are grey at 16."""
    weights = np.zeros((1, 3, 5, 5), np.float32)
    weights[0, 0, 2, 2] = 1
    path = str(network(tmp_path / "red.onnx", weights, [0]))
    rgb = np.zeros((64, 64, 3), np.uint8)
    rgb[::2] = 255
    np.testing.assert_array_equal(OnnxTissue(path, 8.0).find(rgb, AT_8), rgb[..., 0] > 0)
    grey = OnnxTissue(path, 16.0, threshold=0.7).find(rgb, AT_8)
    assert not grey[4:-4].any()
    assert OnnxTissue(path, 16.0, threshold=0.3).find(rgb, AT_8)[4:-4].all()


def test_the_largest_thumbnail_takes_bounded_memory(model: Path) -> None:
    """That of the thumbnail and its answer, and one tile; what onnxruntime takes is its own."""
    rgb = np.full((4096, 4096, 3), 200, np.uint8)
    detector = OnnxTissue(str(model), 8.0)
    detector.find(rgb[:8, :8], AT_8)
    tracemalloc.start()
    try:
        detector.find(rgb, AT_8)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 208 * 2**20


def test_classes_are_those_of_the_largest_channel(tmp_path: Path) -> None:
    """Of a network with a channel for each class."""
    weights = np.zeros((3, 3, 5, 5), np.float32)
    for channel in range(3):
        weights[channel, channel, 2, 2] = 1
    path = str(network(tmp_path / "classes.onnx", weights, [0, 0, 0]))
    rgb = thumbnail(40, 40)
    largest = rgb.argmax(axis=2)
    clear = np.sort(rgb, axis=2)[..., 2] > np.sort(rgb, axis=2)[..., 1]
    for classes in ((0,), (1, 2)):
        cells = OnnxTissue(path, 8.0, classes=classes).find(rgb, AT_8)
        np.testing.assert_array_equal(cells[clear], np.isin(largest, classes)[clear])


def test_pixels_are_normalised_as_said(tmp_path: Path) -> None:
    """Less the mean, over the standard deviation."""
    weights = np.zeros((1, 3, 5, 5), np.float32)
    weights[0, 2, 2, 2] = 1
    path = str(network(tmp_path / "blue.onnx", weights, [0]))
    rgb = thumbnail(20, 20)
    mean, std = (0.1, 0.2, 0.3), (1.0, 1.0, 0.5)
    cells = OnnxTissue(path, 8.0, threshold=0.5, mean=mean, std=std).find(rgb, AT_8)
    np.testing.assert_array_equal(cells, (rgb[..., 2] / 255 - 0.3) / 0.5 >= 0.5)


def test_the_key_has_the_content_of_the_file_and_not_its_path(model: Path, tmp_path: Path) -> None:
    """The same file on another machine has the same masks; another network has others."""
    detector = OnnxTissue(str(model), 8.0)
    assert detector.key == OnnxTissue(str(mean_of_green(tmp_path / "other.onnx")), 8).key
    assert detector.key == pickle.loads(pickle.dumps(detector)).key
    other = network(tmp_path / "b.onnx", np.zeros((1, 3, 5, 5), np.float32), [1.0])
    keys = {
        detector.key,
        OnnxTissue(str(other), 8.0).key,
        OnnxTissue(str(model), 10.0).key,
        OnnxTissue(str(model), 8.0, threshold=0.4).key,
        OnnxTissue(str(model), 8.0, classes=(0,)).key,
        OnnxTissue(str(model), 8.0, tile=256).key,
        OnnxTissue(str(model), 8.0, std=(1, 1, 2)).key,
    }
    assert len(keys) == 7
    table = {"name": "onnx", "path": str(model), "mpp": 8, "threshold": 0.25, "classes": [0]}
    assert detector_of(table) == OnnxTissue(str(model), 8.0, threshold=0.25, classes=(0,))


def test_a_file_that_became_another_one_is_refused(tmp_path: Path) -> None:
    """Masks would have the name of the old network."""
    path = mean_of_green(tmp_path / "green.onnx")
    detector = OnnxTissue(str(path), 8.0)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(HookError, match=r"another one than when.*slide a\.svs.*green\.onnx"):
        detector.find(thumbnail(8, 8), AT_8)
    path.unlink()
    with pytest.raises(HookError, match="cannot be used"):
        detector.find(thumbnail(8, 8), AT_8)


def test_a_slide_whose_resolution_is_unknown_or_too_coarse_is_refused(model: Path) -> None:
    """The network would be shown something that it was not trained for."""
    detector = OnnxTissue(str(model), 8.0)
    with pytest.raises(SlideError, match=r"resolution is unknown.*give mpp"):
        compute_mask(MemorySlide([thumbnail(200, 200)]), detector)
    with pytest.raises(SlideError, match="17 microns per pixel, more than 2 times the 8"):
        detector.find(thumbnail(8, 8), Scale(16, 16, 17.0, "a.svs"))
    mask = compute_mask(MemorySlide([thumbnail(256, 256)], (0.5, 0.5)), detector)
    assert mask.cells.shape == (16, 16)


def test_what_is_no_network_of_that_kind_is_told_with_the_slide(tmp_path: Path) -> None:
    """A file of something else, and a network that does not give what is asked for."""
    nonsense = tmp_path / "no.onnx"
    nonsense.write_bytes(b"no network")
    with pytest.raises(HookError, match=r"on the thumbnail of slide a\.svs"):
        OnnxTissue(str(nonsense), 8.0).find(thumbnail(8, 8), AT_8)
    one = OnnxTissue(str(mean_of_green(tmp_path / "one.onnx")), 8.0, channel=1)
    with pytest.raises(HookError, match=r"it gave shape \(1, 1, 512, 512\).*at least 2 channels"):
        one.find(thumbnail(8, 8), AT_8)
    wild = network(tmp_path / "nan.onnx", np.full((1, 3, 5, 5), np.nan, np.float32), [0.0])
    with pytest.raises(HookError, match="not finite"):
        OnnxTissue(str(wild), 8.0).find(thumbnail(8, 8), AT_8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mpp": 1.0}, "mpp must be a number from 8 to 64"),
        ({"tile": 4096}, "tile must be a whole number from 32 to 2048"),
        ({"tile": 64, "overlap": 32}, "overlap must be a whole number from 0 to 31"),
        ({"std": [1, 1, 0]}, "std must be three numbers"),
        ({"mean": [0, 0]}, "Expected `array` of length 3|mean must be three"),
        ({"classes": [-1]}, "classes must be channel numbers"),
        ({"path": "nowhere.onnx"}, "nowhere.onnx cannot be used"),
        ({"size": 3}, "'onnx' has no parameter 'size'; it has path, mpp, threshold"),
        ({"sha256": "00"}, "no parameter 'sha256'"),
    ],
)
def test_wrong_parameters_are_refused_at_once(
    model: Path, parameters: dict[str, object], message: str
) -> None:
    """Before anything starts."""
    with pytest.raises(ConfigError, match=message):
        detector_of({"name": "onnx", "path": str(model), "mpp": 8.0, **parameters})
    with pytest.raises(ConfigError, match="needs the parameter 'path'"):
        detector_of("onnx")
