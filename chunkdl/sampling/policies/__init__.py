"""Which patient comes next: the protocol in `policy`, and one file a family."""
