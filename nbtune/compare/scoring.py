"""Scores of a grid's columns with their intervals, and each against the best other on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbtune.metrics.statistics import paired_difference, paired_p_value, score_interval

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach
    from nbtune.task import Task

__all__ = ["score_columns"]

Records = tuple[dict[str, Any], ...]


def score_columns(task: Task, made: Sequence[Approach], answered: Sequence[Answers]) -> tuple[Records, Records]:
    """(records of the table, records of the outputs)."""
    expected = [item.expected for item in task.test]
    metric = task.metric
    values = [metric.rows(answers.outputs, expected) for answers in answered]
    scores = [metric.score(answers.outputs, expected) for answers in answered]
    rows = []
    for place, (approach, answers) in enumerate(zip(made, answered, strict=True)):
        low, high = score_interval(metric, answers.outputs, expected)
        rows.append(
            {
                "approach": approach.label,
                metric.name: scores[place],
                "ci_low": low,
                "ci_high": high,
                **_against_best_other(
                    place, [metric.sign * score for score in scores], values, [item.label for item in made], binary=metric.binary
                ),
                **approach.costs(answers),
            }
        )
    outputs = tuple(
        {
            "row": row,
            "approach": approach.label,
            "prompt": item.prompt,
            "output": answers.outputs[row],
            "expected": expected[row],
            "correct": bool(values[place][row]) if metric.binary else None,
            "score": values[place][row],
        }
        for row, item in enumerate(task.test)
        for place, (approach, answers) in enumerate(zip(made, answered, strict=True))
    )
    return tuple(rows), outputs


def _against_best_other(
    place: int, scores: Sequence[float], values: Sequence[Sequence[float]], labels: Sequence[str], *, binary: bool
) -> dict[str, Any]:
    """The paired test against the best of the others, and the difference of the row scores with its 95 % interval."""
    others = [other for other in range(len(scores)) if other != place]
    if not others:
        return {"versus": None, "difference": None, "difference_low": None, "difference_high": None, "p_value": None}
    best = max(others, key=lambda other: scores[other])
    gap = paired_difference(values[place], values[best])
    return {
        "versus": labels[best],
        "difference": gap.mean,
        "difference_low": gap.low,
        "difference_high": gap.high,
        "p_value": paired_p_value(values[place], values[best], binary=binary),
    }
