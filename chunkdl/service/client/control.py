"""What an operator asks of a running service: its status, a pause, a drain."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from chunkdl.errors import ProtocolError, ServiceDied, ServiceRefused
from chunkdl.service.client.sockets import Wire
from chunkdl.service.keys import ClientKeys
from chunkdl.system.awake_clock import PIECE_S, AwakeClock
from chunkdl.transport.protocol.engine_messages import Refuse
from chunkdl.transport.protocol.service_messages import (
    SERVICE_PROTOCOL_VERSION,
    Operate,
    OperatorAnswer,
)

RETRY_S = 0.2


def operate(
    address: str,
    verb: str,
    group: str | None = None,
    *,
    timeout_s: float = 10.0,
    keys: ClientKeys | None = None,
) -> dict[str, Any]:
    """Pause, resume or drain a service, or only ask for its status; returns the status.

    Args:
        address: of the service.
        verb: "status", "pause", "resume" or "drain".
        group: the group to act on; None: all groups.
        timeout_s: maximum time to wait for the answer, seconds.
        keys: for a service with keys; every verb except "status" needs the keys of an operator.

    Raises:
        ServiceDied: there is no answer at the address.
        ServiceRefused: the service refuses the request; the message says why.
    """
    wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    wire: Wire | None = None
    clock = AwakeClock(2 * PIECE_S)
    until_s, asked = clock.now() + timeout_s, False
    try:
        while clock.now() < until_s:
            wire = wire or Wire.open(address, keys, wake, clock)
            if wire is None:
                time.sleep(RETRY_S)
                continue
            if not asked:
                asked = wire.say(Operate(SERVICE_PROTOCOL_VERSION, wire.token, verb, group or ""))
            wire.wait(RETRY_S, with_data=False)
            for answer in wire.messages():
                if isinstance(answer, Refuse):
                    raise ServiceRefused(f"{address}: {answer.reason}")
                if not isinstance(answer, OperatorAnswer):
                    raise ProtocolError(f"the service answered {type(answer).__name__}")
                status: dict[str, Any] = json.loads(answer.status)
                return status
        raise ServiceDied(f"nobody answered at {address} within {timeout_s:g} s")
    finally:
        if wire is not None:
            wire.close()
        os.close(wake)
