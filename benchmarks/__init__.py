"""How fast chunkdl is, beside the limit of the hardware and beside other loaders."""
