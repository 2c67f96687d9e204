"""What PyDmed keeps under the name `utils`; each module has the functions of PyDmed's own.

For programs that were written for PyDmed. Imports the floors below.
"""
