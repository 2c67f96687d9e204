"""Where the tissue is: detectors, masks and their disk cache.

Imports the readers' protocol and no reader.
"""
