"""From the bytes of a slot to a `Batch`: its columns, and memory that is used again.

torch and numpy are behind one protocol (`arrays`), so that a user of numpy needs no torch. Imports
the floors below and no loader.
"""
