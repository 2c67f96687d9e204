"""One stream for one consumer: its configuration, its decisions, its work, and who starts it.

`config` is what all of them are given. Imports every floor below, and nothing of `service` or
`consumers`.
"""
