"""The error that the engines and the model files raise for a person to read."""


class ModelError(Exception):
    """A model file cannot be used; the message is one line that says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(make_line(message))


def make_line(message: str) -> str:
    """Return a message as one line; control characters, which a hostile file may put into a name, become `?`."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
