"""Filters that look at the pixels of a SmallChunk and say yes or no: `pixel_filter` of a stream.

`pixel_filter` says what a filter is, `named` makes one of its name in a file. How a stream keeps
its promise under a filter is in `chunkdl.sampling.filtered_draws`. Imports `slides` and `errors`.
"""
