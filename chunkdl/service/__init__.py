"""One stream for many consumers: what it is started with, its decisions, and its clients.

An engine a group does the reading; nothing here opens a slide. Imports `engine`.
"""
