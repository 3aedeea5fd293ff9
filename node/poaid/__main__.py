"""The program `poaid`."""

from poaid.entry import enter


def main() -> None:
    """Run it."""
    enter("poaid.cli")


if __name__ == "__main__":
    main()
