"""The command line: one file for each command, and `main`, which parses the arguments.

The top floor: it imports everything, and nothing imports it.
"""
