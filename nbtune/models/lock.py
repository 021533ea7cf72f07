"""A lock for several threads that take turns at one thing: first come, first served."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["FairLock"]


@dataclass(frozen=True, eq=False)
class _Turn:
    thread: int = field(default_factory=threading.get_ident)
    come: threading.Event = field(default_factory=threading.Event)


class FairLock:
    """A lock whose waiters are served in the order they came; the holding thread may take it again.

    The first of the turns holds it, and nothing else says so: whatever an interrupt of the main thread cuts short can be done again.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: list[_Turn] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Waits for its turn; in the end, or where an interrupt ends the waiting, it is that of whoever waits longest."""
        turn = _Turn()
        try:
            self._line_up(turn)
            turn.come.wait()
            yield
        finally:
            try:
                self._leave(turn)
            except BaseException:
                self._leave(turn)  # an interrupt came in between
                raise

    def _line_up(self, turn: _Turn) -> None:
        with self._guard:
            again = bool(self._turns) and self._turns[0].thread == turn.thread
            self._turns.insert(0 if again else len(self._turns), turn)
            self._turns[0].come.set()

    def _leave(self, turn: _Turn) -> None:
        with self._guard:
            if turn in self._turns:
                self._turns.remove(turn)
            if self._turns:
                self._turns[0].come.set()
