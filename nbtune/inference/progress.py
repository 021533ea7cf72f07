"""How far an engine is with what it was asked, and what it is writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["Counting", "Progress", "counted", "silent"]

Counting = Callable[[int, int], None]
"""Told (done, in all) after each batch; what it raises ends the work."""
_MOST: Final = 60
"""Characters shown of what is being written: its end."""


class Progress(Protocol):
    """Told after each batch of rows, and at each token of an answer that is written; what it raises ends the work."""

    def __call__(self, done: int, total: int, writing: str = "") -> None:
        """Rows done, rows in all, and what one of the rows at work says so far."""


def silent(done: int, total: int, writing: str = "") -> None:
    """No progress wanted."""


def counted(report: Callable[[str], None], label: str, rows: str = "rows") -> Progress:
    """Progress as a line of text, with the end of what is being written, whose control characters are named: a model may write anything."""

    def progress(done: int, total: int, writing: str = "") -> None:
        written = " ".join(writing.split())
        cut = written if len(written) <= _MOST else f"…{written[-_MOST:]}"
        report(f"{label}: {done} of {total} {rows}{f', writing {cut!r}' if cut else ''}")

    return progress
