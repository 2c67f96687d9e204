"""From the bytes of a slot to a `Batch`: columns, memory that is used again, torch and numpy."""
