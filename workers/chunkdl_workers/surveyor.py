"""The surveyor: looks at slides, one for each number that it is sent.

Started by `chunkdl.survey.processes`, which ends it when a look takes too long: a library that
crashes or hangs over a slide takes nothing else along.
"""

from __future__ import annotations

import pickle
import socket
import sys

from chunkdl.survey.look import encoded
from chunkdl.survey.looking import Looking, Task
from chunkdl.survey.pieces import send_in_pieces
from chunkdl.transport.channel import content_of, receive, send
from chunkdl_workers.process import (
    begin,
    die_with_parent,
    one_thread_for_torch,
    stay_deaf,
    yield_to_others,
)


def main() -> None:
    """Run the program."""
    number, parent, channel, specification = map(int, sys.argv[1:5])
    begin(f"chunkdl-surveyor-{number}")
    die_with_parent(parent)
    end = socket.socket(fileno=channel)
    task: Task = pickle.loads(content_of(specification))  # noqa: S301 - made by our own parent
    yield_to_others()
    if task.stream.pixel_filter is not None:
        task.stream.pixel_filter.prepare()
    stay_deaf()
    one_thread_for_torch()
    looking = Looking(task)
    try:
        send(end, b"ready")
        while data := receive(end)[0]:
            send_in_pieces(end, encoded(looking.look(int(data))))
    except (BrokenPipeError, ConnectionResetError):
        return  # the survey has ended
