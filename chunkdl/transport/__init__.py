"""How pixels and messages cross processes: memory, messages, channels, and the programs themselves.

Knows how things travel and not why. Imports `sampling` and `dataset` for the values in messages.
"""
