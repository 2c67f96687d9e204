"""What processes say to each other: typed messages, their bytes, and credit. Pure."""
