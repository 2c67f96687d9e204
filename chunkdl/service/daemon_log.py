"""What a daemon writes to stderr: lines for people, or JSON objects for a log collector."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)

    def line(self, logger: str, text: str) -> str:
        """What is told beside the log, as one of its lines."""
        return self.format(logging.LogRecord(logger, logging.INFO, "", 0, text, None, None))


def write_log(style: Literal["text", "json"]) -> None:
    """Send the log of this process to stderr in that style."""
    handler = logging.StreamHandler(sys.stderr)
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("chunkdl").setLevel(logging.INFO)
