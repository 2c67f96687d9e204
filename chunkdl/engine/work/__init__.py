"""What one ticket makes a worker do: read a BigChunk, or fill rows of a batch."""
