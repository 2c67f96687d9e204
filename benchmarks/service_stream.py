"""One run of a stream and its consumers: ``python -m benchmarks.service_stream ...``.

Every consumer is a process of its own that takes batches as fast as they come. All warm up, begin
together, and count what they got in the same seconds. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from chunkdl import Dataset, LightDL, connect
from chunkdl.consumers.batches.batch import Batch
from chunkdl.service.configure import configure_service
from chunkdl.service.keys import ClientKeys, Keys, create_keys, load_client_keys, load_server_keys
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import GroupSpec, Mode, ServiceSettings

GROUP = "measured"
WARM_UP_S = 3.0
torch.set_num_threads(1)


class Loader(Protocol):
    """What a consumer reads from."""

    def next_batch(self, timeout: float | None = None, *, copy: bool | None = None) -> Batch:
        """The next batch."""


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `LightDL` for the measured stream."""
    return {
        "batch_size": options.batch,
        "smallchunk_size": options.patch,
        "tissue_threshold": 0.1,
        "reuse": options.reuse,
    }


@contextmanager
def service(options: argparse.Namespace, keys: Keys | None) -> Iterator[tuple[str, psutil.Process]]:
    """A running service, its address and its process."""
    address = f"ipc://@chunkdl-bench-{secrets.token_hex(6)}"
    if options.tcp:
        address = f"tcp://127.0.0.1:{options.tcp}"
    dataset = Dataset.from_slides(options.slides)
    loader = LightDL(dataset, batch_slots=2, **arguments_of(options))
    mode: Mode = "broadcast" if options.broadcast else "shard"
    spec = configure_service(
        dataset,
        dataclasses.replace(loader.arguments, batch_slots=0),
        ServiceSettings(
            binds=(address,),
            groups=(GroupSpec(name=GROUP, mode=mode),),
            max_consumers=max(2, options.consumers),
            keys=keys,
            insecure=keys is None,
        ),
    )
    running = ServiceProcess(spec)
    try:
        yield address, psutil.Process(running.process.pid)
    finally:
        running.close()


def processor_s(process: psutil.Process) -> dict[str, float]:
    """Processor time of the server, its coordinators and all their workers, seconds."""
    spent = {"server": 0.0, "coordinator": 0.0, "workers": 0.0}
    for one in (process, *process.children(recursive=True)):
        line = " ".join(one.cmdline())
        kind = next((name for name in ("server", "coordinator") if f".{name} " in line), "workers")
        times = one.cpu_times()
        spent[kind] += times.user + times.system
    return spent


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Start what is measured and its consumers, and put their counts together."""
    with tempfile.TemporaryDirectory() as folder:
        keys, own = _keys(Path(folder)) if options.curve else (None, None)
        if options.embedded:
            return _run(options, [""], None, own)
        with service(options, keys) as (address, process):
            return _run(options, [address] * options.consumers, process, own)


def _keys(folder: Path) -> tuple[Keys, Path]:
    """Key files of a service and of its client."""
    allowed = folder / "allowed"
    allowed.mkdir(mode=0o700)
    create_keys("server", folder)
    create_keys("client", folder)
    (folder / "client.key").rename(allowed / "client.key")
    return load_server_keys(folder / "server.key_secret", allowed), folder


def _run(
    options: argparse.Namespace,
    addresses: Sequence[str],
    process: psutil.Process | None,
    keys: Path | None,
) -> dict[str, float]:
    own = ["--slides", *options.slides, "--seconds", str(options.seconds)]
    own += ["--batch", str(options.batch), "--patch", str(options.patch)]
    own += ["--reuse", str(options.reuse), "--copy", options.copy]
    if keys is not None:
        own += ["--keys", str(keys)]
    world = 1 if options.broadcast else len(addresses)
    programs = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.service_stream", *own),
                *("--consume", address or "embedded", "--rank", str(rank % world)),
                *("--world", str(world)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, address in enumerate(addresses)
    ]
    for program in programs:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n", "a consumer did not come up"
    before = {} if process is None else processor_s(process)
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("go\n")
        program.stdin.flush()
    found = [json.loads(_last_line(program)) for program in programs]
    after = {} if process is None else processor_s(process)
    made = sum(one["all_batches"] for one in found) / (len(found) if options.broadcast else 1)
    spent = {f"{name}_cpu_ms": 1000 * (after[name] - before[name]) / made for name in after}
    batches = sum(one["batches"] for one in found)
    return {
        "patches": batches * options.batch,
        "seconds": options.seconds,
        "decoded_px": 0,
        "distinct": 0,
        "batches": batches,
        "slowest": min(one["batches"] for one in found) * options.batch / options.seconds,
        "consumer_cpu_ms": 1000 * sum(one["cpu_s"] for one in found) / batches,
        **spent,
    }


def _last_line(program: subprocess.Popen[str]) -> str:
    out, _ = program.communicate(timeout=120)
    return out.splitlines()[-1]


def consume(options: argparse.Namespace) -> None:
    """Be one consumer."""
    copy = {"auto": None, "yes": True, "no": False}[options.copy]
    loader: Loader
    if options.consume == "embedded":
        loader = LightDL(Dataset.from_slides(options.slides), **arguments_of(options))
    else:
        keys = None
        if options.keys is not None:
            server = load_server_keys(options.keys / "server.key_secret", options.keys / "allowed")
            public, secret = load_client_keys(options.keys / "client.key_secret")
            keys = ClientKeys(public, secret, server.public)
        loader = connect(options.consume, GROUP, options.rank, options.world, keys=keys)
    loader.next_batch(120, copy=copy)
    print("ready", flush=True)
    sys.stdin.readline()
    warm = _take(loader, WARM_UP_S, copy=copy)
    cpu = time.process_time()
    batches = _take(loader, options.seconds, copy=copy)
    cpu = time.process_time() - cpu
    # Others measure until the end too, and must not wait for this one.
    late = _take(loader, 1.0, copy=copy)
    found = {"batches": batches, "all_batches": warm + batches + late, "cpu_s": cpu}
    print(json.dumps(found), flush=True)
    # What it holds is given back by its death; closing would be measured with it.
    os._exit(0)


def _take(loader: Loader, seconds: float, *, copy: bool | None) -> int:
    """Take batches for so long; how many."""
    batches, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        loader.next_batch(60, copy=copy)
        batches += 1
    return batches


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_stream")
    parser.add_argument("--slides", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--patch", type=int, default=224)
    parser.add_argument("--reuse", type=float, default=1.0)
    parser.add_argument("--copy", choices=("auto", "yes", "no"), default="auto")
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--consumers", type=int, default=1)
    parser.add_argument("--broadcast", action="store_true")
    parser.add_argument("--tcp", type=int, default=0, help="port; 0: ipc")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--consume", help="be a consumer of this address")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--keys", type=Path)
    options = parser.parse_args()
    if options.consume:
        consume(options)
    else:
        print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
