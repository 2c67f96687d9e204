"""Whether a file is one of DICOM, said by its first bytes: asked of every slide."""

from __future__ import annotations

import os

MAGIC_AT = 128
NO_DICOM = "it is not a DICOM file"
"""Why the reader of DICOM takes nothing else."""


def is_dicom(path: str) -> bool:
    """Whether the file begins as a DICOM file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), 4, MAGIC_AT) == b"DICM"
