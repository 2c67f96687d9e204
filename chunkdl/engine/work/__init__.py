"""The work of one ticket: a loader reads a BigChunk, a collector fills rows of a batch.

The processes that take the tickets are in `workers`. Imports the floors below and `engine.config`,
and no decision: the work does not know why it was asked for.
"""
