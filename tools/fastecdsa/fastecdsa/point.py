"""The name of a point."""


class Point:
    """No point; libp2p names the class in annotations."""
