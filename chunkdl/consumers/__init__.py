"""What a user holds: `LightDL`, `connect`, several services as one, the loader of a rank.

`loader` is what they share. Imports everything before it.
"""
