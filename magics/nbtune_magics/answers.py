"""Answers of approaches to a few dev rows, as a static table: what was asked, what was expected, what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Answered", "answered_html", "answered_text"]

ROWS: Final = 6
_LEFT: Final = ' style="text-align:left;vertical-align:top"'
_TEXT: Final = ' style="text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"'


@dataclass(frozen=True)
class Answered:
    """What one approach answered to dev rows; `right` says of each whether it is (None where the metric has degrees). All untrusted."""

    label: str
    metric: str
    score: float | None
    interval: tuple[float, float] | None
    how: str
    prompts: tuple[str, ...]
    expected: tuple[str, ...]
    outputs: tuple[str, ...]
    right: tuple[bool, ...] | None

    @property
    def summary(self) -> str:
        """The score in a line."""
        if self.score is None:
            return f"{self.label}: there are no dev rows to ask"
        low, high = self.interval if self.interval is not None else (self.score, self.score)
        return f"{self.label}: {self.metric} {self.score:.3f} (95 % {low:.3f} to {high:.3f}) on {len(self.outputs)} dev rows, {self.how}"


def answered_html(answered: Sequence[Answered]) -> str:
    """Scores, then the first rows with every approach's output beside the expected one."""
    lines = "".join(f"<li>{escape(item.summary)}</li>" for item in answered)
    columns = ("end of the prompt", "expected", *(item.label for item in answered))
    heads = "".join(f'<th scope="col"{_LEFT}>{escape(name)}</th>' for name in columns)
    body = "".join(_row(answered, number) for number in range(min(ROWS, len(answered[0].outputs))))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>" if body else ""
    return f"<div><ul>{lines}</ul>{table}</div>"


def answered_text(answered: Sequence[Answered]) -> str:
    """The same in plain text."""
    lines = [item.summary for item in answered]
    for number in range(min(ROWS, len(answered[0].outputs))):
        said = "; ".join(f"{item.label} {_sign(item, number)}{item.outputs[number][:60]!r}" for item in answered)
        lines.append(f"  {_tail(answered[0].prompts[number], 60)!r} expected {answered[0].expected[number][:60]!r}: {said}")
    return "\n".join(lines)


def _row(answered: Sequence[Answered], number: int) -> str:
    first = answered[0]
    cells = [_tail(first.prompts[number], 300), first.expected[number][:300]]
    cells += [_sign(item, number) + item.outputs[number][:300] for item in answered]
    return "<tr>" + "".join(f"<td{_TEXT}>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _sign(item: Answered, number: int) -> str:
    return "" if item.right is None else "✓ " if item.right[number] else "✗ "


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[1 - limit :]
