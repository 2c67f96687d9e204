"""A state that is loaded while the service is away: nobody else waits for that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from chunkdl.consumers.connect import connect
from chunkdl.errors import ChunkdlError, Closed, GetTimeout
from tests.service.conftest import Start, row_digests
from tests.service.two_ranks import addresses

Processes = Callable[..., list[psutil.Process]]


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize(("which", "group"), [(0, "train"), (1, "train"), (0, "trials")])
def test_a_state_that_is_being_loaded_holds_nobody(
    start: Start,
    socket_folder: Path,
    processes_of_this_run: Processes,
    eventually: Callable[..., bool],
    which: int,
    group: str,
    closes: bool,
) -> None:
    """`close` is done at once, a `get` has its timeout; and it goes on when the service does."""
    both = addresses(socket_folder)
    start(binds=both)
    loader = connect(both[which], group, rank=0, world_size=1)
    state = loader.next_batch(60).state
    wanted = row_digests(loader.next_batch(60))
    (server,) = processes_of_this_run("server")
    server.suspend()
    raised: list[BaseException] = []

    def load() -> None:
        try:
            loader.load_state_dict(state)
        except ChunkdlError as error:
            raised.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        assert eventually(lambda: loader._connection is None)
        with pytest.raises(GetTimeout, match="loads a state"):
            loader.next_batch(0.2)
        if closes:
            closing = threading.Thread(target=loader.close)
            closing.start()
            closing.join(20)
            assert not closing.is_alive()
            assert loading.is_alive()
    finally:
        server.resume()
    loading.join(60)
    assert not loading.is_alive()
    if closes:
        assert isinstance(raised[0], Closed)
    else:
        assert row_digests(loader.next_batch(60)) == wanted
        loader.close()
