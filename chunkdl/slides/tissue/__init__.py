"""Where the tissue is: detectors, masks and their cache on disk.

`mask` is what the rest uses, `detectors` has one file a detector. Imports the protocol of slides,
and no reader.
"""
