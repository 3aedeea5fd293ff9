"""The error that the engines and the model files raise for a person to read."""


class ModelError(Exception):
    """A model file cannot be used; the message is one line that says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
