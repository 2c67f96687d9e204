"""How many batches and bytes a consumer may still be sent: the only flow control. Pure."""

from __future__ import annotations

from chunkdl.errors import ProtocolError

MAX_CREDIT = 4096


class Credit:
    """The credit of one consumer; a batch is sent for one unit, a release gives one back.

    Outstanding batches and bytes never exceed what was granted, so the memory that they take is
    bounded without any high-water mark.

    Args:
        limit_bytes: that may be out at a time; None: any number. A single batch may always be.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._out_bytes = 0
        self._granted = 0
        self._sent = 0
        self._returned = 0

    @property
    def available(self) -> int:
        """Batches that may be sent now."""
        return self._granted - self.outstanding

    @property
    def outstanding(self) -> int:
        """Batches sent and not returned."""
        return self._sent - self._returned

    def covers(self, size_bytes: int) -> bool:
        """Whether one batch of that size may be sent now."""
        if self.available < 1:
            return False
        limit = self._limit_bytes
        return limit is None or not self.outstanding or self._out_bytes + size_bytes <= limit

    def grant(self, batches: int) -> None:
        """The consumer takes `batches` more at a time."""
        if batches < 1 or self._granted + batches > MAX_CREDIT:
            raise ProtocolError(
                f"a grant of {batches} batches on top of {self._granted}; 1 to {MAX_CREDIT} in all"
            )
        self._granted += batches

    def spend(self, size_bytes: int = 0) -> None:
        """One batch is sent."""
        if not self.covers(size_bytes):
            raise ProtocolError("a batch was sent without credit")
        self._sent += 1
        self._out_bytes += size_bytes

    def give_back(self, size_bytes: int = 0) -> None:
        """The consumer is done with one batch."""
        if self.outstanding < 1 or size_bytes > self._out_bytes:
            raise ProtocolError("a batch was released that was not out")
        self._returned += 1
        self._out_bytes -= size_bytes
