"""Loggers that outlive the `logging.config` of the training.

`dictConfig` and `fileConfig` silence every logger that exists already and that they do not name:
their `disable_existing_loggers` is true unless somebody says otherwise. What chunkdl warns of would
be lost without a word. Levels, handlers, filters and `propagate` are the user's as ever.
"""

from __future__ import annotations

import logging
from typing import Any


class SteadyLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that cannot be disabled as a whole; `setLevel` is what silences it."""

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        """Log a message; its place is that of whoever called."""
        self.logger.disabled = False
        more["stacklevel"] = more.get("stacklevel", 1) + 1
        super().log(level, msg, *args, **more)


def steady_logger(name: str) -> SteadyLogger:
    """The logger of that name."""
    return SteadyLogger(logging.getLogger(name))
