"""Lines that a stranger or a fault could cause without end: one a minute of each kind, with how many there would be."""

REPEAT_S = 60.0
"""Between two lines of one kind: enough to notice, and too few to fill a disk."""
MAX_KINDS = 64
"""That are told apart; kinds are places in our code, so there are a few."""


class Seldom:
    """Remembers when a line of each kind was written last."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def count(self, kind: str) -> int | None:
        """Return how often it happened since the last line, this time included; None while no line is due."""
        import trio  # noqa: PLC0415 - only when there is something to say: every command imports this module

        now = trio.current_time()
        self._held[kind] = self._held.get(kind, 0) + 1
        if now < self._due.get(kind, now):
            return None
        self._due.pop(kind, None)
        self._due[kind] = now + REPEAT_S  # the newest comes last
        while len(self._due) > MAX_KINDS:
            forgotten = next(iter(self._due))
            del self._due[forgotten]
            self._held.pop(forgotten, None)
        return self._held.pop(kind)
