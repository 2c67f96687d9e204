"""From the arguments of a user to a checked configuration; refuses every mistake it can see."""
