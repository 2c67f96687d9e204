"""From the arguments of a user to a checked configuration. Every mistake that can be seen is refused.

`arguments` declares each setting once, `configure` is the way in. Nothing is started here. Imports
the floors below and `engine.config`, and no decision of a running stream.
"""
