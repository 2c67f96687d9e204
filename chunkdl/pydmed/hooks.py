"""PyDmed's two classes to derive from: chunkdl's, with what PyDmed's programs expect of them."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError
from chunkdl.patches import hooks
from chunkdl.patches.chunks import SmallChunk
from chunkdl.pydmed.returned import with_changes


class NoQueue:
    """Where PyDmed's objects have a queue: it is empty, and nothing can be put in or taken out.

    Args:
        remedy: what to do instead, for the error.
    """

    def __init__(self, remedy: str) -> None:
        self._remedy = remedy

    def qsize(self) -> int:
        """0."""
        return 0

    def empty(self) -> bool:
        """True."""
        return True

    def put(self, *_: Any, **__: Any) -> NoReturn:
        """Refused, as the three below.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"chunkdl passes nothing through PyDmed's queues: {self._remedy}")

    put_nowait = get = get_nowait = put


class BigChunkLoader(hooks.BigChunkLoader):
    """Override `extract_bigchunk`; runs in a loader process. A fresh object for every BigChunk.

    Args:
        patient, queue_bigchunk, const_global_info, queue_logs, old_checkpoint,
            last_message_from_root: PyDmed's, in its order.

    Attributes:
        patient: whose BigChunk is wanted. It is this load's own copy: what the hook changes in it
            is in the BigChunk that it returns, and gone at the next load.
        const_global_info: the user's settings.
        old_checkpoint, last_message_from_root: the patient's, as `get_checkpoint()` and the
            argument of `extract_bigchunk` give them.
        queue_bigchunk: an empty one; return the BigChunk.
        name, pid, daemon, exitcode: those of a process that runs.
    """

    copies_all_arrays = True

    def __init__(
        self,
        patient: Patient,
        queue_bigchunk: object = None,
        const_global_info: Any = None,
        queue_logs: object = None,
        old_checkpoint: Any = None,
        last_message_from_root: Any = None,
    ) -> None:
        super().__init__(
            patient,
            queue_bigchunk,
            const_global_info,
            queue_logs,
            old_checkpoint,
            last_message_from_root,
        )
        self.queue_bigchunk = NoQueue("return the BigChunk from extract_bigchunk")
        self.old_checkpoint = old_checkpoint
        self.last_message_from_root = last_message_from_root
        self.name, self.pid = f"{type(self).__name__}-{patient.int_uniqueid}", os.getpid()
        self.daemon, self.exitcode = False, None

    def is_alive(self) -> bool:
        """True: who can ask runs."""
        return True


class SmallChunkCollector(hooks.SmallChunkCollector):
    """Override `extract_smallchunk`; runs in a collector process, a fresh object per BigChunk.

    None means "nothing this time"; 500 of them in a row mean "no longer willing", where the
    BigChunk has given something or an earlier load of the patient has left a checkpoint, and are an
    error where not. `EXHAUSTED` says "no longer willing" at once.

    Args:
        patient, queue_smallchunks, const_global_info, type_bigchunkloader, queue_logs,
            old_checkpoint, queue_checkpoint, last_message_from_root: PyDmed's, in its order.

    Attributes:
        patient: whose BigChunk this is; this load's own copy. What the patient of a SmallChunk
            differs by from the dataset's goes with the SmallChunk, and has to be small.
        const_global_info: the user's settings.
        type_bigchunkloader: the class of the loader.
        old_checkpoint: what the last load of this patient had left when this one began.
        last_message_from_root: as the argument of `extract_smallchunk` gives it.
        queue_smallchunks, queue_checkpoint: empty ones; return the SmallChunk, and call
            `set_checkpoint`.
        name, pid, daemon, exitcode: those of a process that runs.
    """

    copies_all_arrays = True
    nones_mean_no_more = True

    def __init__(
        self,
        patient: Patient,
        queue_smallchunks: object = None,
        const_global_info: Any = None,
        type_bigchunkloader: object = None,
        queue_logs: object = None,
        old_checkpoint: Any = None,
        queue_checkpoint: object = None,
        last_message_from_root: Any = None,
    ) -> None:
        super().__init__(
            patient,
            queue_smallchunks,
            const_global_info,
            type_bigchunkloader,
            queue_logs,
            old_checkpoint,
            queue_checkpoint,
            last_message_from_root,
        )
        self.type_bigchunkloader: Any = type_bigchunkloader
        self.queue_smallchunks = NoQueue("return the SmallChunk from extract_smallchunk")
        self.queue_checkpoint = NoQueue("call set_checkpoint")
        self.old_checkpoint = old_checkpoint
        self.last_message_from_root = last_message_from_root
        self.name, self.pid = f"{type(self).__name__}-{patient.int_uniqueid}", os.getpid()
        self.daemon, self.exitcode = False, None

    def is_alive(self) -> bool:
        """True: who can ask runs."""
        return True

    def _asked_by_engine(self, call_count: int, bigchunk: Any, last_message_fromroot: Any) -> Any:
        """What the engine calls: the user's answer, with what its patient differs by."""
        answer = self.extract_smallchunk(call_count, bigchunk, last_message_fromroot)
        if not isinstance(answer, SmallChunk):
            return answer
        return with_changes(answer, self._need().changes(answer.patient))
