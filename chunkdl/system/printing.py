"""Text that can be printed, logged and sent, whatever file names are in it."""

from __future__ import annotations

import os


def printable(text: str) -> str:
    """The text with what is not Unicode written out.

    Python holds the bytes of a file name that is not UTF-8 as halves of surrogate pairs. UTF-8 has
    no code for these, so neither a terminal nor a message takes them: "M\\udcfcller.svs" becomes
    "M" + "\\\\udcfc" + "ller.svs". All other text stays as it is.
    """
    return text.encode(errors="backslashreplace").decode()


def file_name_bytes(name: str) -> bytes:
    """The name as a file system holds it; `os.fsdecode` gives it back.

    What no file can be called is written out as `printable` does.
    """
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return printable(name).encode()
