"""The processes of chunkdl: they make happen what the library decides."""
