"""Where a node is found: its ports, and the file in a data directory that tells them while it runs."""

P2P_PORT = 4001
HTTP_PORT_OFFSET = 4000
"""The HTTP port is the peer-to-peer port plus this, unless it is given."""
RUNNING_FILE = "running.json"
"""Tells `poaid status` where a running node can be asked; there only while one runs."""
