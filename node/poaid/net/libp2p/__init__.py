"""libp2p with its faults mended: the only files beside `transport` that import it."""
