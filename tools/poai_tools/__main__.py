"""The program `poai`."""

from poaid.process.entry import enter


def main() -> None:
    """Run it."""
    enter("poai_tools.cli")


if __name__ == "__main__":
    main()
