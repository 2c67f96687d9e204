"""From the arguments of a user to a checked configuration: whatever can be seen is refused here.

`arguments` declares each setting once, `configure` is the way in. Nothing is started. Imports the
floors below and `engine.config`, and no decision of a running stream.
"""
