"""What a file is that is not a slide: the things that people have in place of one."""

from __future__ import annotations

_HEADS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ\0", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def what_it_is(size: int, head: bytes) -> str | None:
    """What a file is that cannot be a slide, with what to do; None where it may be one.

    Args:
        size: of the file, bytes.
        head: its first 512 bytes, or all that there are.
    """
    if size == 0:
        return "the file is empty: copy it again"
    if head.startswith(_LFS):
        return "it is a Git LFS pointer and not the slide itself: run git lfs pull"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES) or (b"<html" in text and text.startswith(b"<")):
        return "it is an HTML page, as a download that failed leaves one: download it again"
    if text.startswith(b"<?xml") and b"<error>" in text:
        return "it is the XML error of a storage service: download it again"
    if head.startswith((b"{", b"[")) and b'"' in head[:64]:
        return "it is a JSON text, as a download that failed leaves one: download it again"
    for start, name in _HEADS:
        if head.startswith(start):
            return f"it is {name} and not a whole-slide image"
    if not head.strip(b"\0"):
        return f"its first {len(head)} bytes are zeros: the copy is not finished, copy it again"
    return None
