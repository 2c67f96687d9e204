"""A service where disks are full; run by a test inside a mount namespace of its own.

``python -m tests.service.full_disks FOLDER FULL``: slides are made in FOLDER; FULL is a disk
without room. Prints whether the rows of a service are those of a `LightDL` with room.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from chunkdl.consumers.lightdl import LightDL
from chunkdl.dataset.patients import Dataset
from chunkdl.service.configure import configure_service
from chunkdl.service.process import ServiceProcess
from chunkdl.service.settings import ServiceSettings
from chunkdl.slides.synthetic.writing import write_tissue_slide
from tests.conftest import free_port
from tests.service.both_modes import each_row_once, in_turn, readers_of
from tests.service.conftest import GROUPS, row_digests

STREAM: dict[str, Any] = {
    "batch_size": 16,
    "smallchunk_size": 64,
    "bigchunk_size": 256,
    "num_bigchunks": 4,
    "num_loaders": 1,
    "num_collectors": 1,
    "memory_limit": "200MiB",
}


def main(folder: Path, full: Path) -> None:
    """Compare."""
    for number in range(2):
        write_tissue_slide(folder / f"{number}.tif", 1024, 1024, seed=number)
    dataset = Dataset.from_slides(folder)
    with LightDL(dataset, mask_cache=folder / "masks", **STREAM) as loader:
        expected = tuple(row for _ in range(10) for row in row_digests(loader.next_batch(60)))
    arguments = LightDL(dataset, mask_cache=full, **STREAM).arguments
    binds = f"ipc://@chunkdl-test-{secrets.token_hex(6)}", f"tcp://127.0.0.1:{free_port()}"
    settings = ServiceSettings(
        binds=binds, groups=GROUPS, max_consumers=2, insecure=True, journal=full / "positions"
    )
    service = ServiceProcess(
        configure_service(dataset, replace(arguments, batch_slots=0), settings)
    )
    found = []
    for group in ("train", "trials"):
        with ExitStack() as stack:
            readers = readers_of(stack, group, binds)
            parts: list[list[str]] = [[] for _ in readers]
            in_turn(readers, parts, 10)
            found.append(each_row_once(parts, group, expected))
    service.close()
    print("equal" if all(found) else "different")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
