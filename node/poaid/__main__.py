"""`python -m poaid` is `poaid`."""

from poaid.cli import main

if __name__ == "__main__":
    main()
