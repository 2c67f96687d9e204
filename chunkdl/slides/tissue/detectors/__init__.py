"""Tissue detectors: which pixels of a thumbnail are tissue.

Each is a frozen value with a name and a key. `named` knows them by the names that a file may say,
`detector` says what a detector is, `shapes` has what several do to masks. Imports the
protocol of slides, `errors` and `system`.
"""
