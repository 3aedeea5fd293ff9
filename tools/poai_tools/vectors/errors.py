"""The error of the vector tools."""


class VectorsError(Exception):
    """The vectors cannot be read, made or run; the message is one line that says what to do.

    Attributes:
        status: exit status of the command: 2 for wrong usage, 1 for a failed check.
    """

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
