"""One file per kind of slide file, and what they share; `registry.open_slide` is the door.

Whatever a reader does, the rest sees a `chunkdl.slides.slide.Slide`.
"""
