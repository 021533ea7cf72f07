"""A comparison's outputs put side by side: one record a test row, disagreements first. No pandas of our own: frames come as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbtune_widgets.formats import plain
from nbtune_widgets.protocols import ComparisonView

__all__ = ["Answer", "AnswerRow", "answer_rows", "approaches", "records"]


@dataclass(frozen=True)
class Answer:
    """What one approach said; `right` is None where there is nothing to be right about, `log_probabilities` are of labels, in nats."""

    output: str
    right: bool | None
    log_probabilities: Mapping[str, float] | None = None
    score: float | None = None


@dataclass(frozen=True)
class AnswerRow:
    """One test row: the end of its shortest prompt is where the rows differ, because examples stand before it."""

    row: int
    prompt: str
    expected: str | None
    answers: dict[str, Answer]

    @property
    def rank(self) -> int:
        """0: some right and some wrong; 1: different words, none told apart by being right; 2: all alike."""
        if len({answer.right for answer in self.answers.values()}) > 1:
            return 0
        return 1 if len({answer.output.strip() for answer in self.answers.values()}) > 1 else 2


def records(frame: Any) -> list[dict[str, Any]]:
    """A DataFrame's rows as dicts of Python values."""
    return [{str(key): plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def approaches(comparison: ComparisonView) -> list[str]:
    """The approaches that answered, in the order of the table."""
    answered = dict.fromkeys(str(row["approach"]) for row in records(comparison.outputs[["approach"]]))
    named = [str(row["approach"]) for row in records(comparison.table)] if len(comparison.table) else []
    return [name for name in named if name in answered] + [name for name in answered if name not in named]


def answer_rows(comparison: ComparisonView) -> Sequence[AnswerRow]:
    """All test rows, those first on which the approaches differ in being right, then those that differ at all."""
    grouped: dict[Any, list[dict[str, Any]]] = {}
    for record in records(comparison.outputs):
        grouped.setdefault(record["row"], []).append(record)
    rows = [_row(key, group) for key, group in grouped.items()]
    return sorted(rows, key=lambda row: (row.rank, row.row))


def _row(key: Any, group: Sequence[dict[str, Any]]) -> AnswerRow:
    prompts = [str(item["prompt"]) for item in group if item.get("prompt") is not None]
    expected = next((str(item["expected"]) for item in group if item.get("expected") is not None), None)
    answers = {
        str(item["approach"]): Answer(
            "" if item.get("output") is None else str(item["output"]),
            None if item.get("correct") is None else bool(item["correct"]),
            item["log_probabilities"] if isinstance(item.get("log_probabilities"), Mapping) else None,
            item.get("score"),
        )
        for item in group
    }
    return AnswerRow(int(key), min(prompts, key=len, default=""), expected, answers)
