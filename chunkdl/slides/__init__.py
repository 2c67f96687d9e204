"""Slide files: one protocol, one file per reader, resolution and resampling."""
