"""One command of the command line, one file. The top floor: nothing imports it."""
