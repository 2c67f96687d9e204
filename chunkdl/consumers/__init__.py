"""What a user holds: `LightDL`, `connect`, several services as one, the loader of a rank.

`loader` is the type that all of them share. Imports every floor below; only `pydmed` and
`commands` import it.
"""
