"""The plan: which region is the k-th BigChunk, which position of it is row i of batch b. Pure.

A function of dataset, settings and seed: no clock, file or process. Imports `slides` and `dataset`
for facts.
"""
