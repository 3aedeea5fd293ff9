"""Blocks of one's own: attempts, and the loop that makes them."""
