"""Who gets which rows, and who is there: events in, actions out. Pure: no socket, clock or process.

`desk` hears the consumers, `group` divides the rows; the process around them is
`workers/chunkdl_workers/server.py`. Imports `sampling` and the messages.
"""
