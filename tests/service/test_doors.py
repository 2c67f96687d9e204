"""The sockets of a service alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FLOODED = """
import sys
import time
import zmq
from chunkdl.transport.protocol.codec import encode
from chunkdl.transport.protocol.engine_messages import Ping
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


ENDING = """
import os
import sys
import threading
import time
import zmq
from chunkdl.transport.protocol.codec import encode
from chunkdl.transport.protocol.engine_messages import Notice, Ping
from chunkdl.errors import AddressInUse
from chunkdl_workers.doors import Doors

folder = sys.argv[1]
address = f"ipc://{folder}/s"
first = Doors((address,), None)
context = zmq.Context()
peer = context.socket(zmq.DEALER)
peer.setsockopt(zmq.RCVHWM, 1)
peer.connect(address)
peer.send(encode(Ping()))
while not (said := list(first.messages())):
    time.sleep(0.01)
# Somebody who is slow to read keeps the context of the service open for a while.
while first.say(said[0][0], Notice(20, "x" * 30_000)):
    pass
ending = threading.Thread(target=first.close)
ending.start()
while True:
    try:
        second = Doors((address,), None)
        break
    except AddressInUse:
        time.sleep(0.001)
assert sorted(os.listdir(folder)) == ["s", "s.lease"]
ending.join()
assert sorted(os.listdir(folder)) == ["s", "s.lease"], os.listdir(folder)
# Nor does one whose files were taken away touch those of another.
os.unlink(f"{folder}/s.lease")
os.unlink(f"{folder}/s")
third = Doors((address,), None)
second.close()
assert sorted(os.listdir(folder)) == ["s", "s.lease"], os.listdir(folder)
third.close()
assert os.listdir(folder) == []
context.destroy(0)
"""


def test_a_service_that_ends_never_touches_the_sockets_of_its_successor(tmp_path: Path) -> None:
    """However long its end takes; and its own are gone when it has ended."""
    program = [sys.executable, "-c", ENDING, str(tmp_path)]
    run = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


ORDINARY = """
import os
import sys
from chunkdl_workers.doors import Doors

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
doors = Doors((f"ipc://@chunkdl-ordinary-{os.getpid()}",), None)
print(len(doors.places))
doors.close()
"""


def test_an_ordinary_user_can_listen_at_an_abstract_address() -> None:
    """Root may enter folders that others may not; `for_ddp` listens there for anybody."""
    run = subprocess.run(
        [sys.executable, "-c", ORDINARY], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout.strip()) == (0, "1"), run.stderr
