"""What a patch is: BigChunk and SmallChunk, the classes and transforms of a user, and how those are
made to give the same twice.

Imports `sampling` for the keys of random numbers, and `transport` for what travels.
"""
