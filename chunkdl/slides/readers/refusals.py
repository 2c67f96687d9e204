"""The two ways in which a reader says no; `registry.open_slide` makes a `SlideError` of both."""

from __future__ import annotations


class NotTaken(Exception):
    """The file may be sound, but another reader has to take it; the message says what is in it."""


class Refused(Exception):
    """No reader may take the file: it would be read wrong. The message says what would help."""
