"""Slides that are made up, for `chunkdl demo`, the examples and the tests.

Writes files that any reader opens. Imports `slides.slide`, and no reader.
"""
