"""The command `poaid`."""
