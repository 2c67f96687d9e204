"""What every test shares: slides, datasets, and the proof that nothing is left behind."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import random
import secrets
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from hypothesis import HealthCheck, settings
from numpy.random import bit_generator

from chunkdl.dataset.patients import Dataset, Patient, Record
from chunkdl.patches.seeded_code import globals_kept
from chunkdl.slides.synthetic.writing import CoordinateSlide, write_coordinate_slide

# `make test` tries the same examples each time, so that it says the same of the same tree; `make
# fuzz` looks for new ones. How long an example takes says how busy the machine is.
ANY_TIME: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, database=None, **ANY_TIME)
settings.register_profile("searching", print_blob=True, **ANY_TIME)

MARK = "CHUNKDL_TEST_RUN"
os.environ[MARK] = uuid.uuid4().hex
PATIENCE_S = 100.0

SLIDE_WIDTH, SLIDE_HEIGHT = 1500, 1248


@pytest.fixture(scope="session")
def slides_folder() -> Path:
    """The folder of real slides; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CHUNKDL_SLIDES", Path(__file__).parents[2] / "shared" / "slides"))
    if not folder.is_dir():
        pytest.skip("the folder of real slides is not here (set CHUNKDL_SLIDES)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept of slides and what is temporary goes to folders of this process of the tests."""
    temporary = os.fspath(tmp_path_factory.mktemp("t"))  # short: sockets get names in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path_factory.mktemp("cache")))
        patch.setenv("TMPDIR", temporary)
        patch.setattr(tempfile, "tempdir", temporary)
        yield


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Says at once what failed: a run that is broken off has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} of {report.nodeid} failed\n{report.longreprtext}\n", flush=True)


def our_processes(program: str = "") -> list[psutil.Process]:
    """Processes of chunkdl that this test run has started, orphans included.

    Args:
        program: "coordinator", "loader" or "collector"; empty for all.
    """
    found = []
    wanted, mark = f"chunkdl_workers.{program}".encode(), f"{MARK}={os.environ[MARK]}".encode()
    # Read by hand: this is asked twice a test, and most processes are none of ours.
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if wanted not in Path("/proc", entry, "cmdline").read_bytes():
                continue
            if mark in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.append(psutil.Process(int(entry)))
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def _descriptors() -> list[str]:
    """Anonymous memory and sockets that this process has open."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(link for link in links if link.startswith(("/memfd:chunkdl", "socket:")))


def _temporary() -> list[str]:
    """Temporary files of chunkdl, in the folder that only this process and its children have."""
    return sorted(name for name in os.listdir(os.environ["TMPDIR"]) if name.startswith("chunkdl"))


def _shared_memory() -> list[str]:
    """Named shared memory of chunkdl or of this process; other programs make and delete theirs."""
    mine = str(os.getpid())
    names = os.listdir("/dev/shm")
    return sorted(name for name in names if "chunkdl" in name or mine in name.split("_"))


def wait_until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether `condition` became true in time; asks again until then."""
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        if waited_s > patience_s:
            return False
        # What takes long is asked about less often: a look at all processes costs some time too.
        time.sleep(min(0.1, max(0.01, waited_s / 20)))
    return True


# Linux gives the ports from 32768 on to whoever asks for any, also between our choice and its use.
_PORTS = itertools.cycle(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A TCP port of this machine that nobody uses, and that nobody gets who does not name it."""
    for port in itertools.islice(_PORTS, 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port between 20000 and 32000 is free")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No process, anonymous memory, socket, temporary file or seed outlives a test."""
    gc.freeze()  # else each test looks for garbage in all modules, for a third of a second
    descriptors, temporary = _descriptors(), _temporary()
    shared = _shared_memory()
    yield
    gc.collect()
    assert wait_until(lambda: not our_processes(), PATIENCE_S), our_processes()
    now = _descriptors
    assert wait_until(lambda: now() == descriptors, PATIENCE_S), (descriptors, now())
    assert _temporary() == temporary
    assert _shared_memory() == shared
    assert getattr(bit_generator, "randbits", None) is secrets.randbits


@pytest.fixture(autouse=True)
def by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Workers get the classes and transforms of a test itself, as those of a script.

    To import its module they would import pytest and torch first, which takes longer than all that
    a worker imports else. Programs whose classes lie in modules have tests of their own.
    """
    module = request.module
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def generators_stay() -> Iterator[None]:
    """What a worker does to its global generators is not left to other tests."""
    with globals_kept(gpus=False):
        yield


def ragged_mask(seed: int, height: int = 50, width: int = 60) -> npt.NDArray[np.bool_]:
    """Tissue in irregular islands that touch every edge of the slide."""
    rng = np.random.default_rng(seed)
    rough = rng.random((height // 5 + 2, width // 5 + 2))
    smooth = np.kron(rough, np.ones((5, 5)))[:height, :width]
    mask = smooth + 0.2 * rng.random((height, width)) > 0.55
    mask[:3, 10:30] = mask[-3:, 20:40] = True
    mask[10:30, :3] = mask[20:40, -3:] = True
    return np.asarray(mask)


@pytest.fixture(scope="session")
def coordinate_slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, CoordinateSlide]:
    """Three slides, by path, whose every pixel says which slide, level and place it is."""
    folder = tmp_path_factory.mktemp("coordinates")
    slides = {}
    for number in range(3):
        path = str(folder / f"slide-{number}.tif")
        slides[path] = write_coordinate_slide(
            path, SLIDE_WIDTH, SLIDE_HEIGHT, slide_id=number, tile=128, levels=(1, 2, 4), mpp=0.25
        )
    return slides


@pytest.fixture(scope="session")
def coordinate_dataset(coordinate_slides: dict[str, CoordinateSlide]) -> Dataset:
    """Two patients, one of them with two slides, with ragged tissue and a label."""
    first, second, third = coordinate_slides
    records = [
        Record("/", path[1:], {"tissue_mask": ragged_mask(number)})
        for number, path in enumerate((first, second, third))
    ]
    return Dataset(
        "coordinates",
        [
            Patient(7, {"a": records[0], "b": records[1], "label": 1}),
            Patient(9, {"a": records[2], "label": 0}),
        ],
    )


@pytest.fixture(scope="session")
def small_stream() -> dict[str, Any]:
    """Arguments of a stream that is quick to make and has everything in it.

    It is the same for any number of loaders; the tests of faults have two.
    """
    return {
        "batch_size": 16,
        "smallchunk_size": 64,
        "bigchunk_size": 512,
        "num_bigchunks": 6,
        "smallchunks_per_bigchunk": 40,
        "tissue_threshold": 0.5,
        "num_loaders": 1,
        "num_collectors": 1,
        "seed": 3,
    }


def batch_digest(batch: Any) -> str:
    """SHA-256 over every column of a batch."""
    digest = hashlib.sha256()
    for name in ("x", "y", "level", "mpp", "tissue_fraction", "bigchunk", "call", "image"):
        digest.update(np.ascontiguousarray(batch[name].numpy()).tobytes())
    digest.update("|".join(batch["slide"] + batch["patient"]).encode())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def digest_of() -> Callable[[Any], str]:
    """SHA-256 over every column of a batch."""
    return batch_digest


@pytest.fixture(scope="session")
def processes_of_this_run() -> Callable[..., list[psutil.Process]]:
    """Processes of chunkdl that this test run has started, orphans included."""
    return our_processes


@pytest.fixture(scope="session")
def eventually() -> Callable[..., bool]:
    """Whether a condition becomes true in time."""
    return wait_until


@pytest.fixture(scope="session")
def reference(coordinate_dataset: Dataset, small_stream: dict[str, Any]) -> tuple[str, ...]:
    """Digests of the first 200 batches of the small stream, undisturbed."""
    from chunkdl import LightDL

    with LightDL(coordinate_dataset, **small_stream) as loader:
        return tuple(batch_digest(loader.next_batch(60)) for _ in range(200))
