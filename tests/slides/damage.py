"""Damage to the bytes of a slide, chosen well: structure, numbers at the edges, texts, streams."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

EDGES = (
    *(0, 1, 2, 3, 5, 7, 8, 9, 16, 63, 64, 127, 128, 255, 256, 257, 1000, 4095, 4096, 4097),
    *(8192, 16384, 32767, 32768, 65535, 65536, 100_000, 2**20, 2**24, 2**28, 2**30),
    *(2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
TEXT_NUMBERS = (
    *("0", "-1", "1", "2", "65536", "99999999999", "1e999", "nan", "inf", "-inf", "1e-320"),
    *("0.0", "١", "0x10", "", " ", "1_0", "9" * 400, "9" * 5000, "²", "1,5", "--", "\0"),
)
TAGS = (
    *(254, 256, 257, 258, 259, 262, 266, 270, 271, 273, 274, 277, 278, 279, 282, 284, 296, 301),
    *(305, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347, 513, 514, 530, 532, 700, 32997),
    *(32998, 33471, 33560, 33628, 33629, 33630, 33631, 33723, 34118, 34361, 34362, 34363, 34386),
    *(34412, 34665, 34675, 34680, 34682, 34853, 37706, 37724, 40100, 40965, 42112, 42113, 43314),
    *(50674, 50838, 50839, 51123, 65000, 65420, 65421, 65424, 65426, 65427, 65432, 65439, 65459),
)
"""Of which readers, or the libraries below them, make something."""
COMPRESSIONS = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 33003, 33005, 34712, 34887, 34925, 34933),
    *(50000, 50001, 50002, 22610, 34661, 34676, 34892, 48124, 65000),
)
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class Damaged:
    """Bytes of a file, and what was done to them in words."""

    data: bytes
    what: str


def damaged(data: bytes, rng: random.Random) -> Damaged:
    """The bytes of a file with one to three things done to them."""
    held, words = bytearray(data), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        act = rng.choice(_acts_on(bytes(held[:132])))
        words.append(f"{act.__name__.strip('_')}: {act(held, rng)}")
    return Damaged(bytes(held), "; ".join(words))


Act = Callable[[bytearray, random.Random], str]


def _acts_on(head: bytes) -> tuple[Act, ...]:
    if head[:2] in (b"II", b"MM"):
        return _ON_TIFF
    if head[128:132] == b"DICM":
        return _ON_DICOM
    return _ON_ANY


# ---- Any file


def _truncate(data: bytearray, rng: random.Random) -> str:
    end = rng.choice((rng.randrange(len(data) + 1), rng.randrange(min(len(data), 600) + 1)))
    del data[end:]
    return f"at byte {end}"


def _flip(data: bytearray, rng: random.Random) -> str:
    front = rng.random() < 0.5
    places = [
        rng.randrange(min(len(data), 2000) if front else len(data))
        for _ in range(rng.randint(1, 8) if data else 0)
    ]
    for place in places:
        data[place] = rng.choice((0, 255, rng.randrange(256), data[place] ^ 1 << rng.randrange(8)))
    return f"bytes {places}"


def _number(data: bytearray, rng: random.Random) -> str:
    """Write a number at the edge of its type anywhere in the front or at the end."""
    size, order = rng.choice((2, 4, 8)), rng.choice("<>")
    if len(data) < size:
        return "too short"
    place = rng.randrange(len(data) - size + 1)
    if rng.random() < 0.7:
        place = min(place, rng.randrange(3000))
    edge = rng.choice((*EDGES, len(data), len(data) - 1, place))
    _put(data, place, size, order, edge)
    return f"{edge} in {size} bytes at {place}"


def _put(data: bytearray, place: int, size: int, order: str, value: int) -> None:
    kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    data[place : place + size] = struct.pack(order + kind, value % 256**size)


def _append(data: bytearray, rng: random.Random) -> str:
    count = rng.choice((1, 3, 4096))
    data += rng.choice((bytes(count), rng.randbytes(count)))
    return f"{count} bytes behind the end"


def _text(data: bytearray, rng: random.Random) -> str:
    """Change a number or a name in a text, anywhere in the file; it keeps its length."""
    found = [
        match
        for match in re.finditer(rb"[\x09\x0a\x0d\x20-\x7e]{24,}", bytes(data))
        if re.search(rb"[=<|]", match[0])
    ]
    if not found:
        return "no text"
    text = rng.choice(found)
    new = changed_text(text[0].decode(), rng).encode()[: len(text[0])].ljust(len(text[0]))
    data[text.start() : text.end()] = new
    return repr(_difference(text[0], new))


def _difference(old: bytes, new: bytes) -> bytes:
    at = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    return new[max(0, at - 20) : at + 40]


def changed_text(text: str, rng: random.Random) -> str:
    """A text in which a number, an attribute or an element became another."""
    kind = rng.randrange(8)
    numbers = list(re.finditer(r"\d+(\.\d+)?", text))
    if kind <= 3 and numbers:
        one = rng.choice(numbers)
        new = rng.choice((*TEXT_NUMBERS, str(rng.choice(EDGES)), str(-rng.choice(EDGES))))
        return text[: one.start()] + new + text[one.end() :]
    words = list(re.finditer(r'\s?[\w-]+="[^"]*"|</?[\w-]+/?>|\w+', text))
    if kind == 4 and words:
        one = rng.choice(words)
        return text[: one.start()] + text[one.end() :]
    if kind == 5 and words:
        one, other = rng.choice(words), rng.choice(words)
        return text[: one.start()] + other[0] + text[one.end() :]
    at = rng.randrange(len(text) + 1)
    new = rng.choice(("<", ">", '"', "&", "&lol;", "<a>" * 2000, "\0", "]]>", "<!--", "é"))
    if kind == 6:
        entities = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">]><a>&b;</a>'
        return rng.choice((entities, text[::-1], text[:at], "<a>" * 50_000, text * 20))
    return text[:at] + new + text[at:]


# ---- TIFF


@dataclass(frozen=True)
class _Entry:
    """An entry of a directory: where it is, and what it says."""

    at: int
    tag: int
    kind: int
    count: int
    value_at: int

    @property
    def unit(self) -> int:
        return TYPE_BYTES.get(self.kind, 1)


@dataclass(frozen=True)
class _Tiff:
    """Where the parts of a TIFF are."""

    order: str
    big: bool
    entries: tuple[_Entry, ...]
    links: tuple[int, ...]
    directories: tuple[int, ...]

    @property
    def wide(self) -> int:
        return 8 if self.big else 4


def _parts(data: bytes) -> _Tiff:
    """The parts that can still be found."""
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    wide, entry_bytes = (8, 20) if big else (4, 12)
    wide_kind = "Q" if big else "I"
    entries: list[_Entry] = []
    directories: list[int] = []
    links, waiting = [8 if big else 4], [8 if big else 4]
    while waiting and len(directories) < 20:
        try:
            (offset,) = struct.unpack_from(order + wide_kind, data, waiting.pop(0))
            (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
            start = offset + (8 if big else 2)
            end = start + entry_bytes * count
            if offset == 0 or offset in directories or count > 100 or end + wide > len(data):
                continue
            directories.append(offset)
            for at in range(start, end, entry_bytes):
                tag, kind, number = struct.unpack_from(order + "HH" + wide_kind, data, at)
                value_at = at + 4 + wide
                if TYPE_BYTES.get(kind, 1) * number > wide:
                    (value_at,) = struct.unpack_from(order + wide_kind, data, value_at)
                entries.append(_Entry(at, tag, kind, number, value_at))
                if tag == 330 and number < 9:
                    waiting += [value_at + wide * step for step in range(number)]
            links.append(end)
            waiting.append(end)
        except (struct.error, OverflowError):
            continue
    return _Tiff(order, big, tuple(entries), tuple(links), tuple(directories))


def _one(parts: _Tiff, rng: random.Random) -> _Entry | None:
    return rng.choice(parts.entries) if parts.entries else None


def _tag(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    entry = _one(parts, rng)
    if entry is None:
        return "none"
    new = rng.choice((*TAGS, rng.randrange(65536)))
    _put(data, entry.at, 2, parts.order, new)
    return f"{entry.tag} is {new}"


def _kind(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    entry = _one(parts, rng)
    if entry is None:
        return "none"
    new = rng.choice((*range(20), 129, 65535))
    _put(data, entry.at + 2, 2, parts.order, new)
    return f"of tag {entry.tag} is {new}"


def _count(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    entry = _one(parts, rng)
    if entry is None:
        return "none"
    new = rng.choice((*EDGES, entry.count + 1, max(0, entry.count - 1), len(data) // entry.unit))
    _put(data, entry.at + 4, parts.wide, parts.order, new)
    return f"of tag {entry.tag} is {new}"


def _place(data: bytearray, rng: random.Random) -> str:
    """Of a value that lies elsewhere, or the value itself where it is in the entry."""
    parts = _parts(bytes(data))
    entry = _one(parts, rng)
    if entry is None:
        return "none"
    new = rng.choice((*EDGES, len(data), len(data) - 1, entry.at, *parts.directories))
    _put(data, entry.at + 4 + parts.wide, parts.wide, parts.order, new)
    return f"of tag {entry.tag} is {new}"


def _value(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    entry = _one(parts, rng)
    if entry is None or entry.unit not in (1, 2, 4, 8) or not entry.count:
        return "none"
    step = rng.randrange(min(entry.count, 5000))
    unit = 4 if entry.kind in (5, 10) else entry.unit
    place = entry.value_at + step * entry.unit + rng.choice((0, entry.unit - unit))
    if place + unit > len(data):
        return "none"
    choices: tuple[int, ...] = (*EDGES, len(data), len(data) - 1)
    if entry.tag == 259 and rng.random() < 0.8:
        choices = COMPRESSIONS
    elif entry.tag in (254, 262, 284, 317, 338, 339, 296, 277, 258) and rng.random() < 0.7:
        choices = (0, 1, 2, 3, 4, 5, 6, 8, 9, 16, 32)
    new = rng.choice(choices)
    _put(data, place, unit, parts.order, new)
    return f"{step} of tag {entry.tag} is {new}"


def _sizes(data: bytearray, rng: random.Random) -> str:
    """All of the numbers that say how large a picture and its tiles are, together."""
    parts = _parts(bytes(data))
    said: list[int] = []
    wanted = rng.choice(((256, 257), (322, 323), (256, 257, 322, 323), (278,), (256, 257, 278)))
    new = rng.choice((1, 16, 4096, 8192, 2**14, 2**15, 2**16, 2**20, 2**24, 2**31 - 1, 2**32 - 1))
    for entry in parts.entries[:30]:
        if entry.tag in wanted and entry.count == 1 and entry.value_at + 4 <= len(data):
            _put(data, entry.at + 2, 2, parts.order, 4)
            _put(data, entry.value_at, 4, parts.order, new)
            said.append(entry.tag)
    return f"{said} are {new}"


def _scaled(data: bytearray, rng: random.Random) -> str:
    """Pictures, tiles and streams that say that they are larger, and agree in it."""
    times = rng.choice((2, 8, 16, 31, 32, 33, 64, 100, 256, 1024, 2**15, 2**24))
    across, down = rng.choice(((times, times), (times, times), (1, times), (times, 1)))
    parts = _parts(bytes(data))
    for entry in parts.entries:
        if entry.tag in (256, 257, 322, 323, 278) and entry.count == 1:
            size = min(entry.unit, 4)
            low = entry.value_at + (entry.unit - size if parts.order == ">" else 0)
            if low + size <= len(data):
                old = int.from_bytes(data[low : low + size], _ORDERS[parts.order])
                factor = across if entry.tag in (256, 322) else down
                _put(data, entry.at + 2, 2, parts.order, 4)
                _put(data, entry.value_at, 4, parts.order, min(old * factor, 2**32 - 1))
    return f"{across} x {down}{_scaled_streams(data, across, down, rng)}"


_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}


def _scaled_streams(data: bytearray, across: int, down: int, rng: random.Random) -> str:
    if rng.random() < 0.2:
        return ""
    progressive = rng.random() < 0.3
    for match in re.finditer(rb"\xff[\xc0-\xc2]\0[\x0b\x11]\x08", bytes(data)):
        _grow(data, match.start() + 5, 2, down)
        _grow(data, match.start() + 7, 2, across)
        if progressive:
            data[match.start() + 1] = 0xC2
    for match in re.finditer(rb"\xff\x4f\xff\x51", bytes(data)):
        for place, factor in ((8, across), (12, down), (24, across), (28, down)):
            _grow(data, match.start() + place, 4, factor)
    return ", streams too" + ", progressive" * progressive


def _grow(data: bytearray, place: int, size: int, factor: int) -> None:
    if place + size <= len(data):
        old = int.from_bytes(data[place : place + size], "big")
        _put(data, place, size, ">", min(old * factor, 256**size - 1))


def _link(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    place = rng.choice(parts.links)
    if place + parts.wide > len(data):
        return "none"
    new = rng.choice((*EDGES, *parts.directories, place, len(data), rng.randrange(len(data))))
    _put(data, place, parts.wide, parts.order, new)
    return f"at {place} is {new}"


def _magic(data: bytearray, rng: random.Random) -> str:
    new = rng.choice((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\x55\0", b"IIRO", b"II\xbc\x01"))
    data[:4] = new
    return repr(new)


def _entries(data: bytearray, rng: random.Random) -> str:
    """Two entries swapped, one doubled, or another number of them."""
    parts = _parts(bytes(data))
    one, other = _one(parts, rng), _one(parts, rng)
    if one is None or other is None:
        return "none"
    size = 20 if parts.big else 12
    first, second = data[one.at : one.at + size], data[other.at : other.at + size]
    data[other.at : other.at + size] = first
    if rng.random() < 0.6:
        data[one.at : one.at + size] = second
    if rng.random() < 0.2:
        new = rng.choice(EDGES)
        _put(data, parts.directories[0], 8 if parts.big else 2, parts.order, new)
    return f"{one.tag} and {other.tag}"


def _elsewhere(data: bytearray, rng: random.Random) -> str:
    """A value that is written anew behind the end: a text changed, or numbers of another count."""
    parts = _parts(bytes(data))
    texts = [one for one in parts.entries if one.tag in (270, 700) and one.count > 8]
    if texts and rng.random() < 0.8:
        entry = rng.choice(texts)
        old = bytes(data[entry.value_at : entry.value_at + entry.count]).decode("latin-1")
        new = changed_text(old, rng).encode("utf-8", "replace") + b"\0"
    else:
        found = _one(parts, rng)
        if found is None:
            return "none"
        entry = found
        old_bytes = bytes(data[entry.value_at : entry.value_at + entry.unit * entry.count])
        times = rng.choice((0, 1, 2, 1000))
        new = (old_bytes * times)[: 2**20] or rng.choice((bytes(64), b"\xff" * 64))
        new = new[: rng.choice((len(new), len(new) // 2, max(0, len(new) - 1)))]
    start = len(data)
    data += new + bytes(8)
    _put(data, entry.at + 4, parts.wide, parts.order, len(new) // entry.unit)
    _put(data, entry.at + 4 + parts.wide, parts.wide, parts.order, start)
    return f"tag {entry.tag} has {len(new)} bytes at {start}: {new[:60]!r}"


def _cut_at_structure(data: bytearray, rng: random.Random) -> str:
    parts = _parts(bytes(data))
    places = [*parts.directories, *parts.links, *(one.value_at for one in parts.entries)]
    end = max(0, min(len(data), rng.choice(places) + rng.choice((-1, 0, 1, 2, 9))))
    del data[end:]
    return f"at byte {end}"


def _samples(data: bytearray, rng: random.Random) -> str:
    """Another number of samples, or of their bits, that all tags agree in."""
    parts = _parts(bytes(data))
    samples, bits = rng.choice((1, 2, 4, 5, 100, 65535)), rng.choice((1, 8, 8, 16, 16, 32, 65535))
    for entry in parts.entries:
        if entry.tag == 277:
            _put(data, entry.value_at, 2, parts.order, samples)
        if entry.tag == 258:
            _put(data, entry.at + 4, parts.wide, parts.order, 1)
            _put(data, entry.at + 4 + parts.wide, 2, parts.order, bits)
    return f"{samples} of {bits} bits"


# ---- Streams of pixels


def _stream(data: bytearray, rng: random.Random) -> str:
    """The numbers and markers of a JPEG or JPEG 2000 stream, or of any other codec."""
    jpegs = [match.start() for match in re.finditer(rb"\xff\xd8\xff", bytes(data))]
    codestreams = [match.start() for match in re.finditer(rb"\xff\x4f\xff\x51", bytes(data))]
    if jpegs and (not codestreams or rng.random() < 0.5):
        return _jpeg(data, rng.choice((jpegs[0], rng.choice(jpegs))), rng)
    if codestreams:
        start = rng.choice((codestreams[0], rng.choice(codestreams)))
        place = start + rng.choice((*range(4, 60), rng.randrange(200)))
        size = rng.choice((1, 2, 4))
        if place + size <= len(data):
            edge = rng.choice(EDGES)
            _put(data, place, size, ">", edge)
            return f"{edge} in {size} bytes at {place - start} of a codestream"
    if len(data) > 64:
        place = rng.randrange(len(data) - 32)
        data[place : place + 16] = rng.choice((rng.randbytes(16), b"\xff" * 16, bytes(16)))
        return f"16 bytes at {place}"
    return "none"


def _jpeg(data: bytearray, start: int, rng: random.Random) -> str:
    segments, at = [], start + 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = struct.unpack_from(">H", data, at + 2)[0]
        segments.append((at, data[at + 1], length))
        at += 2 + length
    if not segments:
        return "no segments"
    place, marker, length = rng.choice(segments)
    frames = [one for one in segments if 0xC0 <= one[1] <= 0xCF and one[1] not in (0xC4, 0xC8)]
    if frames and rng.random() < 0.6:
        place, marker, length = frames[0]
    kind = rng.randrange(5)
    if kind == 0:
        new = rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xDA, 0xD9, 0xDD, 0xFE, 0xC4, 0xDB))
        data[place + 1] = new
        return f"marker {marker:x} is {new:x}"
    if kind == 1:
        _put(data, place + 2, 2, ">", rng.choice(EDGES))
        return f"length of {marker:x}"
    if kind == 2:
        data[place + 1] = 0xFE
        return f"without {marker:x}"
    inside = place + 4 + rng.randrange(max(1, length - 2))
    if kind == 3 and place + 9 < len(data):
        sides = rng.choice(((0, 0), (65535, 65535), (65500, 64), (64, 65500), (1, 1), (63, 64)))
        data[place + 5 : place + 9] = struct.pack(">HH", *sides)
        return f"sides {sides} in {marker:x}"
    if inside < len(data):
        data[inside] = rng.choice((0, 1, 4, 0x11, 0x44, 0xFF, rng.randrange(256)))
    return f"byte {inside - place} of {marker:x}"


# ---- DICOM


def _elements(data: bytes) -> list[tuple[int, bytes, int, int]]:
    """(place of the header, kind, place of the value, length) of what can be found."""
    long = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
    found: list[tuple[int, bytes, int, int]] = []
    at = 132
    while at + 12 <= len(data) and len(found) < 400:
        vr = data[at + 4 : at + 6]
        if data[at : at + 2] == b"\xfe\xff":
            length, value = struct.unpack_from("<I", data, at + 4)[0], at + 8
            step = 0
        elif vr in long:
            length, value = struct.unpack_from("<I", data, at + 8)[0], at + 12
            step = 0 if vr == b"SQ" else length
        else:
            length, value = struct.unpack_from("<H", data, at + 6)[0], at + 8
            step = length
        found.append((at, vr, value, length))
        if step == 0xFFFFFFFF:
            step = 0
        at = value + step
    return found


def _element(data: bytearray, rng: random.Random) -> str:
    found = _elements(bytes(data))
    if not found:
        return "none"
    at, vr, value, length = rng.choice(found)
    name = data[at : at + 4].hex()
    kind = rng.randrange(6)
    if kind == 0:
        wide = value - at == 12 or data[at : at + 2] == b"\xfe\xff"
        new = rng.choice((*EDGES, length + 1, length + 2, max(0, length - 2)))
        _put(data, value - 4 if wide else value - 2, 4 if wide else 2, "<", new)
        return f"length of {name} is {new}"
    if kind == 1:
        kinds = b"SQ OB UN US UL IS DS FD FL UI CS LO AT SS UT OW UV XX".split()
        new_vr = rng.choice((*kinds, b"\0\0"))
        data[at + 4 : at + 6] = new_vr
        return f"kind of {name} is {new_vr!r}"
    if kind == 2:
        delimiters = (0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD)
        tags = (0x7FE00010, 0x52009229, 0x52009230, 0x00480006, 0x00280008, 0x00280010)
        tag = rng.choice((*delimiters, *tags, rng.randrange(2**32)))
        data[at : at + 4] = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        return f"tag {name} is {tag:08x}"
    if kind == 3:
        other = rng.choice(found)
        end = min(len(data), other[2] + min(other[3], 5000))
        data[at:at] = data[other[0] : end]
        return f"{data[other[0] : other[0] + 4].hex()} doubled before {name}"
    if kind == 4 and length < 5000:
        data[at : value + length] = b""
        return f"without {name}"
    return _element_value(data, (at, vr, value, length), rng)


def _scaled_dicom(data: bytearray, rng: random.Random) -> str:
    """Frames and streams that say that they are larger, and agree in it."""
    times = rng.choice((2, 16, 63, 64, 100, 255, 1023))
    tags = {0x00280010: 2, 0x00280011: 2, 0x00480006: 4, 0x00480007: 4}
    for at, _, value, length in _elements(bytes(data)):
        group, element = struct.unpack_from("<HH", data, at)
        size = tags.get(group << 16 | element)
        if size == length:
            old = int.from_bytes(data[value : value + size], "little")
            _put(data, value, size, "<", min(old * times, 256**size - 1))
    return f"{times}{_scaled_streams(data, times, times, rng)}"


def _element_value(
    data: bytearray, element: tuple[int, bytes, int, int], rng: random.Random
) -> str:
    at, vr, value, length = element
    name = data[at : at + 4].hex()
    if vr in (b"US", b"UL", b"SL", b"SS", b"FD", b"FL", b"OB", b"OV") and length:
        size = rng.choice((2, 4)) if length >= 4 else 2
        step = rng.randrange(max(1, min(length, 2000) // size))
        new = rng.choice(EDGES)
        _put(data, value + step * size, size, "<", new)
        return f"value of {name} is {new}"
    texts = (*TEXT_NUMBERS, *map(str, EDGES), "1\\2", "\\" * 3000, "RGB", "YBR_FULL", "TILED_FULL")
    text = rng.choice((*texts, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "é")).encode()
    text = (text + b" " * (len(text) % 2))[:60_000]
    if vr == b"SQ":
        nest = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack(
            "<HH2sHI", 0x0048, 0x0105, b"SQ", 0, 0xFFFFFFFF
        )
        text = nest * rng.choice((1, 50, 3000))
        data[value:value] = text
    elif length < 60_000 and value - at == 8:
        data[value : value + length] = text
        _put(data, value - 2, 2, "<", len(text))
    return f"value of {name} is {text[:40]!r}"


_ON_ANY: tuple[Act, ...] = (_truncate, _flip, _number, _append, _text, _text, _stream)
_ON_TIFF: tuple[Act, ...] = (
    *(_truncate, _flip, _number, _append, _text, _stream, _stream),
    *(_scaled, _scaled, _samples, _tag, _kind, _count, _count, _place, _value, _value, _value),
    *(_sizes, _link, _magic, _entries, _elsewhere, _elsewhere, _cut_at_structure),
)
_ON_DICOM: tuple[Act, ...] = (
    *(_truncate, _flip, _number, _append, _stream, _scaled_dicom),
    *(_element,) * 6,
)
