"""The program `poaid`."""

from poaid.process.entry import enter


def main() -> None:
    """Run it."""
    enter("poaid.cli.main")


if __name__ == "__main__":
    main()
