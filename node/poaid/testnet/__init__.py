"""Several nodes on this machine."""
