"""The coordinator of an embedded service, as a process of the training process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

STOP_TIMEOUT_S = 5.0
"""For the service to end when it is told to, before it is killed."""


def start_coordinator(end: socket.socket, specification: int) -> subprocess.Popen[bytes]:
    """Start the coordinator as a program of its own; the training process is never forked."""
    descriptors = [end.fileno(), specification]
    environment = dict(os.environ)
    # The child must find the same packages, and the modules that user classes were defined in.
    environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.setdefault(name, "1")
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "chunkdl_workers.coordinator",
            str(os.getpid()),
            *map(str, descriptors),
        ],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        env=environment,
        # Ctrl-C of the terminal is for the training process; the service follows it.
        process_group=0,
    )


def stop_coordinator(process: subprocess.Popen[bytes], end: socket.socket) -> None:
    """Let the service end, which closing its channel tells it; kill it where it does not."""
    end.close()  # the coordinator sees the end of its parent's channel, and ends
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
