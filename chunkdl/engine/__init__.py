"""One stream for one consumer: its configuration, decisions, work, and the side that starts it.

Imports everything before it and nothing of `service` or `consumers`.
"""
