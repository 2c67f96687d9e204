"""Which patient comes next: the protocol in `policy`, and one file for each family.

A policy sees patients and their labels, and no file. Imports `dataset`, and nothing else of
`sampling`.
"""
