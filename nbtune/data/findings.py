"""What the data doctor finds: one thing each, with the value seen, what to do about it, and the rows it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nbtune.data.examples import Example
from nbtune.errors import DataError

__all__ = ["Finding", "Level", "place", "quoted", "refusal"]

Level = Literal["refuse", "warn", "info"]
_QUOTED: Final = 60


@dataclass(frozen=True)
class Finding:
    """One thing found: `what` in plain words, `fix` what to do, `rows` where ("train[3]" is `task.train[3]`).

    "refuse": a training would be worthless, or its score a lie; "warn": look at it; "info": good to know.
    """

    level: Level
    what: str
    fix: str = ""
    rows: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Both on one line."""
        return f"{self.what}; {self.fix}" if self.fix else self.what


def place(example: Example) -> str:
    """Where an example stands, as Python finds it in its task."""
    return f"{example.split}[{example.index}]"


def quoted(text: str) -> str:
    """The beginning of a text on one line, in quotes."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _QUOTED else line[: _QUOTED - 1] + "…")


def refusal(findings: Sequence[Finding]) -> DataError:
    """One error of all `findings` (at least one)."""
    if len(findings) == 1:
        where = f" ({', '.join(findings[0].rows[:3])}{', ...' if len(findings[0].rows) > 3 else ''})" if findings[0].rows else ""  # noqa: PLR2004
        return DataError(findings[0].what + where, hint=findings[0].fix)
    lines = [f"{len(findings)} things in the data keep a training from being worth anything"]
    lines += [f"  {item.what}" + (f" → {item.fix}" if item.fix else "") for item in findings]
    return DataError("\n".join(lines))
