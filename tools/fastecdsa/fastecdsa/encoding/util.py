"""The one function that libp2p takes from here."""


def int_bytelen(number: int) -> int:
    """Return how many bytes a number has."""
    return (abs(number).bit_length() + 7) // 8
