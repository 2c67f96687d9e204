"""Slides that are made up: for `chunkdl demo`, the examples and the tests."""
