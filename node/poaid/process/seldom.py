"""Lines that a stranger or a fault could cause without end: one a minute of each kind, with how many there would be."""

REPEAT_S = 60.0
"""Between two lines of one kind: enough to notice, and too few to fill a disk."""
MAX_KINDS = 64
"""That are told apart in that time. Kinds are places in our code, but some name a peer or what it has said: whoever
chooses ever new ones gets one line a minute for all of them."""
_OTHERS = ""


class Seldom:
    """Remembers when a line of each kind was written last."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def count(self, kind: str) -> int | None:
        """Return how often it happened since the last line, this time included; None while no line is due."""
        import trio  # noqa: PLC0415 - only when there is something to say: every command imports this module

        now = trio.current_time()
        if kind not in self._due and len(self._due) >= MAX_KINDS:
            self._forget(now)
            if len(self._due) >= MAX_KINDS:
                kind = _OTHERS
        self._held[kind] = self._held.get(kind, 0) + 1
        if now < self._due.get(kind, now):
            return None
        self._due[kind] = now + REPEAT_S
        return self._held.pop(kind)

    def _forget(self, now: float) -> None:
        """Forget the kinds of which a line may be written again."""
        for kind in [kind for kind, due in self._due.items() if due <= now]:
            del self._due[kind]
            self._held.pop(kind, None)
