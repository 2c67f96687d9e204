"""The plan: which region is the k-th BigChunk, which position of it is row i of batch b. Pure."""
