"""A service where there is no room left on disks that it would use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
mount -t tmpfs -o size=64m tmpfs /dev/shm || exit 77
dd if=/dev/zero of=/dev/shm/full bs=1M 2>/dev/null
mount -t tmpfs -o size=64k,mode=700 tmpfs "$FULL" || exit 77
dd if=/dev/zero of="$FULL/full" bs=1k 2>/dev/null
exec "$@"
"""


def test_full_disks_cost_warnings_and_no_row(tmp_path: Path) -> None:
    """/dev/shm of 64 MiB, the mask cache and the file of positions: all of them full."""
    folder, full, script = tmp_path / "slides", tmp_path / "full", tmp_path / "in_namespace.sh"
    folder.mkdir()
    full.mkdir()
    script.write_text(SCRIPT)
    program = [sys.executable, "-m", "tests.service.full_disks", str(folder), str(full)]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", str(script), *program],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=REPOSITORY,
        env={**os.environ, "FULL": str(full), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()[:200]}")
    assert done.stdout.strip() == "equal", done.stderr
    assert "the positions cannot be written" in done.stderr
    # Of the engine of each group.
    assert done.stderr.count("the folder of tissue masks") == 2
