"""Lines that a stranger or a fault could cause without end: one a minute of each kind, with how many there would be."""

import trio

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
        now = trio.current_time()
        self._held[kind] = self._held.get(kind, 0) + 1
        if now < self._due.get(kind, now):
            return None
        for held in list(self._due)[: len(self._due) - MAX_KINDS + 1]:
            del self._due[held]
        self._due[kind] = now + REPEAT_S
        return self._held.pop(kind)
