"""A look at the directories of a TIFF before a parser takes memory for what they claim.

Every directory and every value must lie inside the file, and there may not be more of them than
any slide has. What is left cannot make a parser read, or allocate, more than the file holds.
"""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

MOST_DIRECTORIES = 4096
MOST_ENTRIES = 1024
"""Of a directory; no writer known has a hundred."""
MOST_ENTRIES_OF_ALL = 2**17
MOST_NUMBERS = 2**22
"""Of all values together, texts left aside; a parser takes 36 bytes for each. That is the tables of
two million tiles."""
TEXTS = (1, 2, 6, 7)
"""Types that a parser returns as bytes."""
MOST_BYTES_AT_ONCE = 64 * 2**20
SUB_IFDS, NDPI_FORMAT = 330, 65420
VALUE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value, by its type."""


class Damaged(Exception):
    """The file is damaged; the message says where."""


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins like this says that it is a TIFF or a BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(path: str) -> None:
    """Check that all that the directories point at lies inside the file.

    Raises:
        Damaged: it does not, or there is more of it than a slide can have.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        _Look(file, os.fstat(file.fileno()).st_size).at_all()


class BoundedFile(io.BufferedReader):
    """A file that gives no more bytes at once than it has: memory is taken before it is read."""

    def __init__(self, path: str) -> None:
        super().__init__(io.FileIO(path))
        self._bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes; fewer at the end of the file, and at most 64 MiB."""
        left = max(0, min(MOST_BYTES_AT_ONCE, self._bytes - self.tell()))
        return super().read(left if size is None or size < 0 else min(size, left))


class _Look:
    """One file being looked at."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        head = self._at(0, min(16, size), "its header")
        if not is_tiff(head):
            raise Damaged("it is not a TIFF")
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = head[2:4] in (b"+\0", b"\0+")
        # NDPI has the layout of a small TIFF with offsets of 64 bits.
        self._first = self._number(head[8:16] if self._big else head[4:8])
        self._ndpi = False
        self._entries = self._numbers = self._text_bytes = 0

    def _number(self, data: bytes) -> int:
        kind = {2: "H", 4: "I", 8: "Q"}[len(data)]
        number: int = struct.unpack(f"{self._order}{kind}", data)[0]
        return number

    def _at(self, offset: int, count: int, what: str) -> bytes:
        if offset + count > self._size:
            raise Damaged(
                f"{what} lies at byte {offset} and the file ends at byte {self._size}: the file is "
                "cut short, copy it again"
            )
        self._file.seek(offset)
        return self._file.read(count)

    def at_all(self) -> None:
        """Look at every directory of the chain and at their SubIFDs, which are what is parsed."""
        chain: set[int] = set()
        below: set[int] = set()
        offset = self._first
        while offset:
            if offset in chain:
                raise Damaged("its directories form a cycle")
            chain.add(offset)
            self._count_directories(chain, below)
            offset, further = self._directory(offset, f"directory {len(chain) - 1}")
            for other in further:
                # A parser goes through a directory again for each time that it is named.
                if other in below:
                    raise Damaged("two of its SubIFDs are one directory")
                below.add(other)
                self._count_directories(chain, below)
                if other:
                    self._directory(other, f"a SubIFD of directory {len(chain) - 1}")
        if not chain:
            raise Damaged("it has no directory")

    def _count_directories(self, chain: set[int], below: set[int]) -> None:
        if len(chain) + len(below) > MOST_DIRECTORIES:
            raise Damaged(f"it has more than {MOST_DIRECTORIES} directories")

    def _directory(self, offset: int, what: str) -> tuple[int, list[int]]:
        """The directory that follows this one, and its SubIFDs."""
        wide = 8 if self._big else 4
        entry_bytes, count_bytes = (20, 8) if self._big else (12, 2)
        count = self._number(self._at(offset, count_bytes, what))
        if not 0 < count <= MOST_ENTRIES:
            raise Damaged(f"{what} has {count} entries")
        self._entries += count
        if self._entries > MOST_ENTRIES_OF_ALL:
            raise Damaged(f"its directories have more than {MOST_ENTRIES_OF_ALL} entries")
        start = offset + count_bytes
        body = self._at(start, count * entry_bytes + wide, what)
        tags = [
            self._number(body[at : at + 2]) for at in range(0, count * entry_bytes, entry_bytes)
        ]
        self._ndpi = self._ndpi or (not self._big and NDPI_FORMAT in tags)
        end = start + count * entry_bytes
        high = bytes(4 * count)
        if self._ndpi:
            high = self._at(end + 8, 4 * count, f"the high words of {what}")
        further = []
        for place, tag in enumerate(tags):
            entry = body[place * entry_bytes : (place + 1) * entry_bytes]
            words = self._number(high[4 * place : 4 * place + 4])
            value = self._value(entry, wide, words, f"tag {tag} of {what}")
            if tag == SUB_IFDS:
                size = 8 if len(value) % 8 == 0 and self._number(entry[2:4]) in (16, 18) else 4
                further += [
                    self._number(value[at : at + size])
                    for at in range(0, len(value) // size * size, size)
                ]
        next_bytes = 8 if self._ndpi or self._big else 4
        following = self._number(self._at(end, next_bytes, f"the end of {what}"))
        return following, further

    def _value(self, entry: bytes, wide: int, high: int, what: str) -> bytes:
        """The bytes of SubIFD offsets; of all others only whether they lie inside the file."""
        kind, count = self._number(entry[2:4]), self._number(entry[4 : 4 + wide])
        if kind not in VALUE_BYTES:
            return b""
        length = count * VALUE_BYTES[kind]
        if length <= wide:
            return entry[4 + wide : 4 + wide + length]
        offset = self._number(entry[4 + wide :]) | (high << 32)
        if offset + length > self._size:
            raise Damaged(
                f"{what} has {length} bytes at byte {offset} and the file ends at byte "
                f"{self._size}: the file is cut short or damaged, copy it again"
            )
        if kind in TEXTS:
            self._text_bytes += length
        else:
            self._numbers += count
        # Directories may share values, but not so often that the file becomes much larger.
        if self._text_bytes > self._size + 2**20 or self._numbers > MOST_NUMBERS:
            raise Damaged("its directories claim more values than a slide can have")
        if self._number(entry[:2]) != SUB_IFDS:
            return b""
        if length > 8 * MOST_DIRECTORIES:
            raise Damaged(f"{what} has {count} values")
        return self._at(offset, length, what)
