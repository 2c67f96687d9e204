"""The decisions of a running stream: events in, actions out. No socket, clock or process."""
