"""Where the tissue is: detectors, masks and their cache on disk.

`mask` is what the rest uses. Imports the protocol of slides, and no reader.
"""
