"""``python -m chunkdl``: the same as the command ``chunkdl``."""

from __future__ import annotations

import sys

from chunkdl.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
