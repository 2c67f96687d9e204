"""However a training process ends, its service ends with it and leaves nothing."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from chunkdl import Dataset, LightDL
from chunkdl.errors import Closed, ServiceDied, WorkerDied
from tests.conftest import our_processes

Processes = Callable[..., list[psutil.Process]]


def test_closing_ends_every_process(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """After close() nothing runs, get() says that it was closed, closing again is not an error."""
    loader = LightDL(coordinate_dataset, **small_stream)
    loader.get(timeout=60)
    assert len(processes_of_this_run()) == 3
    loader.close()
    loader.close()

    assert processes_of_this_run() == []
    with pytest.raises(Closed):
        loader.get(timeout=60)


def test_a_collected_loader_ends_its_service(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    processes_of_this_run: Processes,
    eventually: Callable[..., bool],
) -> None:
    """A loader that is forgotten without close() takes its processes with it."""
    loader = LightDL(coordinate_dataset, **small_stream)
    image = loader.next_batch(60)["image"]
    before = image.clone()
    del loader
    gc.collect()

    # A tensor that was kept stays what it was, and keeps nothing running.
    assert eventually(lambda: not processes_of_this_run())
    assert bool((image == before).all())


def test_an_exception_in_the_loop_ends_the_service(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """Leaving the with block by an exception ends everything and passes the exception on."""
    with (
        pytest.raises(ZeroDivisionError),
        LightDL(coordinate_dataset, **small_stream) as loader,
    ):
        loader.get(timeout=60)
        _ = 1 / 0

    assert processes_of_this_run() == []


TRAINING = """
import json, os, sys
sys.modules["torch"] = None  # it takes longer than all of the rest
from chunkdl import Dataset, LightDL
paths = json.loads(sys.argv[1]); arguments = json.loads(sys.argv[2])
loader = LightDL(Dataset.from_slides(paths), tissue="none", arrays="numpy", **arguments)
loader.get(timeout=60)
print("running", flush=True)
if sys.argv[3] == "raise":
    raise RuntimeError("the training failed")
while True:
    loader.get(timeout=60)
"""


@contextmanager
def training(dataset: Dataset, stream: dict[str, Any], how: str) -> Iterator[subprocess.Popen[str]]:
    """A training script that has received its first batch."""
    paths = json.dumps([record.path for patient in dataset for record in patient.slides])
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING, paths, json.dumps(stream), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        process_group=0,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process


@pytest.mark.parametrize("how", ["kill", "kill the group", "interrupt", "raise", "terminate"])
def test_the_service_ends_with_the_trainer(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    processes_of_this_run: Processes,
    eventually: Callable[..., bool],
    how: str,
) -> None:
    """Killed, interrupted, terminated or fallen over: within seconds nothing of it is left."""
    with training(coordinate_dataset, small_stream, how) as process:
        if how == "kill":
            process.kill()
        elif how == "kill the group":
            os.killpg(process.pid, signal.SIGKILL)
        elif how == "interrupt":
            process.send_signal(signal.SIGINT)
        elif how == "terminate":
            process.terminate()
        _, errors = process.communicate(timeout=100)

    assert process.returncode != 0
    assert eventually(lambda: not processes_of_this_run())
    if how == "raise":
        assert "the training failed" in errors
    if how == "interrupt":
        assert "KeyboardInterrupt" in errors


def test_a_murdered_coordinator_is_reported(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """When the service is gone, get() says so and how it ended, instead of waiting."""
    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.get(timeout=60)
        for process in processes_of_this_run("coordinator"):
            process.kill()
        with pytest.raises(ServiceDied, match="SIGKILL"):
            for _ in range(50):
                loader.get(timeout=60)


def test_a_frozen_coordinator_is_reported(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """When the service stands still, get() says so after a while, and nothing of it is left."""
    with LightDL(coordinate_dataset, **{**small_stream, "stall_timeout": 0.5}) as loader:
        loader.get(timeout=60)
        for process in processes_of_this_run("coordinator"):
            process.suspend()
        with pytest.raises(ServiceDied, match="has not answered"):
            for _ in range(50):
                loader.get(timeout=60)


def test_a_coordinator_with_nothing_to_say_is_not_taken_for_dead(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """A batch may take longer to make than a coordinator may be silent that is asked."""

    def slowly(pixels: Any) -> Any:
        time.sleep(0.2)
        return pixels

    patient = {**small_stream, "stall_timeout": 1.0, "hook_timeout": 60.0}
    with LightDL(coordinate_dataset, **patient, tfms=slowly) as loader:
        for _ in range(3):
            loader.get(timeout=60)


def test_workers_that_die_all_the_time_end_the_stream(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """The restart budget is a bound: beyond it get() raises and names the last death."""

    def kill_and_get(loader: LightDL) -> None:
        for process in processes_of_this_run("loader"):
            process.kill()
        loader.get(timeout=60)

    with (
        LightDL(coordinate_dataset, **{**small_stream, "max_restarts": 2}) as loader,
        pytest.raises(WorkerDied, match=r"(?s)faster than they can be replaced.*SIGKILL"),
    ):
        for _ in range(200):
            kill_and_get(loader)


def test_descriptors_and_memory_are_given_back_every_time(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Ten loaders in a row leave this process with the descriptors it had after the first."""

    def once() -> int:
        with LightDL(coordinate_dataset, **small_stream) as loader:
            for _ in range(3):
                loader.get(timeout=60)
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    first = once()

    assert [once() for _ in range(4)] == [first] * 4


def test_a_full_dev_shm_does_not_matter(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], tmp_path: Path
) -> None:
    """With a /dev/shm of 64 MiB that is full, the stream runs as ever."""
    script = tmp_path / "in_namespace.sh"
    paths = json.dumps([record.path for patient in coordinate_dataset for record in patient.slides])
    program = tmp_path / "train.py"
    program.write_text(
        "import json, sys\n"
        "from chunkdl import Dataset, LightDL\n"
        "paths = json.loads(sys.argv[1]); arguments = json.loads(sys.argv[2])\n"
        "with LightDL(Dataset.from_slides(paths), tissue='none', **arguments) as loader:\n"
        "    for _ in range(5):\n"
        "        loader.get(timeout=60)\n"
        "print('streamed')\n"
    )
    script.write_text(
        "mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 77\n"
        "dd if=/dev/zero of=/dev/shm/full bs=1M 2>/dev/null\n"
        'exec "$@"\n'
    )
    inside = [sys.executable, str(program), paths, json.dumps(small_stream)]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", str(script), *inside],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()[:200]}")

    assert "streamed" in done.stdout, done.stderr


def test_memory_that_the_system_refuses_is_an_error_before_any_batch(
    coordinate_dataset: Dataset, small_stream: dict[str, Any], processes_of_this_run: Processes
) -> None:
    """It says what to lower; here by a limit on the size of files, which holds for memory too."""
    paths = json.dumps([record.path for patient in coordinate_dataset for record in patient.slides])
    program = [sys.executable, "-c", TRAINING, paths, json.dumps(small_stream), "forever"]
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *program],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert "MemoryLimitError: the system has no" in last
    assert "MiB for chunkdl-bigchunks; lower num_bigchunks" in last
    assert not processes_of_this_run()


def test_an_idle_service_uses_no_processor(
    coordinate_dataset: Dataset,
    small_stream: dict[str, Any],
    processes_of_this_run: Processes,
    eventually: Callable[..., bool],
) -> None:
    """With a consumer that does not ask, the processes come to rest and wake for nothing."""

    def switches() -> int:
        return sum(p.num_ctx_switches().voluntary for p in processes_of_this_run())

    with LightDL(coordinate_dataset, **small_stream) as loader:
        loader.get(timeout=60)
        last = [0]

        def at_rest() -> bool:
            before, last[0] = last[0], switches()
            return before == last[0]

        # The ZeroMQ threads have no timers and the workers only wait: three looks without a wake.
        assert eventually(lambda: at_rest() and at_rest() and at_rest(), 100)


@pytest.fixture(autouse=True)
def few_descriptors() -> Iterator[None]:
    """The usual limit of 1,024 descriptors is enough."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_loader_that_is_dropped_in_the_middle_of_an_iteration_ends_at_once(
    coordinate_dataset: Dataset, small_stream: dict[str, Any]
) -> None:
    """Without close, and without waiting for the collector of cycles."""
    gc.collect()
    gc.disable()
    try:
        loader = LightDL(coordinate_dataset, **small_stream)
        for number, _ in enumerate(loader):
            if number == 3:
                break
        next(iter(loader))
        del loader
        assert not our_processes()
    finally:
        gc.enable()
