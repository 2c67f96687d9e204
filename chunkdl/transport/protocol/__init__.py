"""What processes say to each other: typed messages, their bytes, and credit. Pure.

`engine_messages` and `service_messages` have every message, `codec` their bytes. Imports `sampling`
and `dataset` for the values in messages, and nothing of `transport.memory`.
"""
