"""How a BigChunk of a user's class gets into its slot: one object of the class, one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from chunkdl.engine.config import EngineConfig
from chunkdl.engine.work.extracted import Extracted
from chunkdl.engine.work.load_bigchunk import BigChunkPx
from chunkdl.engine.work.loader_tools import ROOM, LoaderTools
from chunkdl.engine.work.open_slides import OpenSlides
from chunkdl.errors import HookError, PackingError
from chunkdl.patches.hooks import Exhausted
from chunkdl.patches.patient_copies import PatientCopies
from chunkdl.patches.seeded_code import SeededCode, seed_globals
from chunkdl.patches.tissue_hooks import TissueBigChunkLoader
from chunkdl.patches.user_code import UserCode, hook_errors
from chunkdl.sampling.seeding import Purpose
from chunkdl.transport.memory.notes import value_of
from chunkdl.transport.memory.packing import Packer
from chunkdl.transport.protocol.engine_messages import LoadBigChunk


class Extractor:
    """Runs the user's loader class.

    Args:
        config: of the service.
        user: the user's part of the stream.
        slides: those that this loader has open.
        log: takes lines for the log of the training process.
        warn: takes warnings for it.
    """

    def __init__(
        self,
        config: EngineConfig,
        user: UserCode,
        slides: OpenSlides,
        log: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._config = config
        self._user = user
        self._kind = user.bigchunkloader or TissueBigChunkLoader
        self._hook = f"{self._kind.__name__}.extract_bigchunk"
        self._slides = slides
        self._log = log
        self._shared = user.shared()
        self._code = SeededCode.of_class(config.stream.seed, self._kind, user.settings, warn)
        self._copies = PatientCopies(user.patients, all_arrays=self._kind.copies_all_arrays)

    def extract(
        self,
        ticket: LoadBigChunk,
        slot: npt.NDArray[np.uint8],
        reserve: Callable[[int, int], None],
    ) -> BigChunkPx | Exhausted:
        """Run the hook and put what it returns into the slot.

        Args:
            ticket: which BigChunk.
            slot: of the BigChunk; it belongs to this call.
            reserve: called before bytes [first, end) of the slot are written.

        Returns:
            What was read with the fast reader, or `EXHAUSTED`.

        Raises:
            SlideError: a slide or a region cannot be used.
            HookError: the hook raised, or what it returned cannot be put into the slot.
        """
        stream, user = self._config.stream, self._user
        name, kind = user.patients[ticket.patient].name, self._kind.__name__
        with hook_errors(f"{kind}.__init__", name):
            patient = self._copies.fresh(ticket.patient)
        packer = Packer(slot, reserve, self._shared)
        tools = LoaderTools(
            stream, ticket, patient, self._config.slides, self._slides, packer, self._log
        )
        numbers = Purpose.BIGCHUNK, ticket.ordinal, ticket.attempt, 0
        seed_globals(stream.seed, *numbers)
        self._code.seed_own(*numbers)
        with hook_errors(f"{kind}.__init__", name):
            message, checkpoint = value_of(ticket.message), value_of(ticket.checkpoint)
            hook: Any = object.__new__(self._kind)
            # Before __init__, so that the helpers work there too.
            hook._tools = tools
            hook.__init__(patient, None, user.settings, None, checkpoint, message)
        self._code.of_object(hook).seed_own(*numbers)
        with hook_errors(self._hook, name):
            bigchunk: Any = hook.extract_bigchunk(message)
        if isinstance(bigchunk, Exhausted):
            return bigchunk
        records, filtered = tools.records(), stream.pixel_filter is not None
        if filtered and records is None:
            raise HookError(
                "it has not looked at the plan, so its SmallChunks would not pass through "
                "pixel_filter; take window and positions, or read_window(), and the places in the "
                "collector; or leave pixel_filter out and filter in your class",
                hook=self._hook,
                patient=name,
                kind="ConfigError",
            )
        extracted = Extracted(
            ticket.patient,
            bigchunk,
            records,
            ticket.checkpoint,
            ticket.message,
            by_place=filtered and not tools.took_positions,
        )
        try:
            if self._copies.is_unchanged(ticket.patient, patient):
                # The collector has this patient too; it need not travel.
                self._shared[id(patient)] = ticket.patient
            packer.pack(extracted)
        except PackingError as error:
            raise self._unpackable(bigchunk, error, name) from error
        finally:
            self._shared.pop(id(patient), None)
        return tools.read_px

    def _unpackable(self, bigchunk: Any, error: PackingError, patient: str) -> HookError:
        advice = "" if error.wanted_bytes is None else f"; {ROOM}"
        return HookError(
            f"what it returned, of class {type(bigchunk).__name__}, cannot be put into shared "
            f"memory: {error}{advice}",
            hook=self._hook,
            patient=patient,
            kind=type(error).__name__,
        )
