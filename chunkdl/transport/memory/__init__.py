"""Pixels move through memory that cannot leak: arenas, their slots, and who may touch them."""
