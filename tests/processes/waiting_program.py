"""A program that waits until it is ended, for tests of how programs are started and ended."""

from __future__ import annotations

import signal


def main() -> None:
    """Wait for a signal."""
    signal.pause()
