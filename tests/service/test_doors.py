"""The sockets of a service alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FLOODED = """
import sys
import time
import zmq
from chunkdl.protocol.codec import encode
from chunkdl.protocol.messages import Ping
from chunkdl_workers.doors import Doors

doors = Doors((sys.argv[1],), None)
context = zmq.Context()
for _ in range(4):
    stranger = context.socket(zmq.DEALER)
    stranger.connect(doors.addresses[0])
    for _ in range(900):
        stranger.send(encode(Ping()))
    # It is gone while most of what it said waits in front of the door.
    time.sleep(0.5)
    stranger.close(0)
# Longer than any interval at which ZeroMQ would look at the connection.
time.sleep(6.0)
heard = sum(1 for _ in doors.messages())
doors.close()
context.term()
print(heard)
"""


def test_strangers_that_flood_and_hang_up_do_not_end_a_service_that_is_busy(
    tmp_path: Path,
) -> None:
    """libzmq would abort the process at its next heartbeat on such a connection."""
    program = [sys.executable, "-c", FLOODED, f"ipc://{tmp_path}/s"]
    run = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 0
