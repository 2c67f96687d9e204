"""Memory that several processes map and that cannot leak: arenas, slots, and who may touch them.

`layouts` says how things lie in a slot. Imports `row_format` and `errors`, and no message.
"""
