"""The decisions of a running stream: events in, actions out. Pure: no socket, clock or process.

`core` is the way in; the process around it is `workers/chunkdl_workers/coordinator.py`. Imports
`sampling`, the messages and the ledger of slots.
"""
