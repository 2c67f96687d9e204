"""A consumer's side of a service: one session, kept up by a thread of its own."""
