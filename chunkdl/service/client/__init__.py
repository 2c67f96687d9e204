"""A consumer's side of a service: one session, kept up by a thread of its own.

`connection` is what a loader holds; only `session_thread` touches sockets after that. Imports
`transport` and the names of the service, and none of its decisions.
"""
