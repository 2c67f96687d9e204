"""The decisions of the running service: events in, actions out. No socket, clock or process."""
