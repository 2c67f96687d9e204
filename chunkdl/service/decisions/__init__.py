"""Who gets which rows, and who is there: events in, actions out. No socket, clock or process."""
