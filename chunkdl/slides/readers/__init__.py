"""One file for each kind of slide file, and what they share; `registry.open_slide` is the door.

Whatever a reader does, the rest sees a `chunkdl.slides.slide.Slide`. Imports `slide` and the floors
below, and nothing of `tissue`.
"""
