"""Scores of a grid's columns with their intervals, and every two columns against each other on the same rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nbtune.compare.verdict import break_even_rows
from nbtune.metrics.statistics import adjusted, contrast_of_rows, contrast_of_whole, repeated_interval, score_interval

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach
    from nbtune.metrics.scores import Metric
    from nbtune.task import Task

__all__ = ["Column", "Scored", "paired", "score_columns"]

Records = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Scored:
    """Records of the table, of the outputs, and of each pair of columns."""

    rows: Records
    answers: Records
    pairs: Records


@dataclass(frozen=True)
class Column:
    """A column's score with its interval, its rows' scores (means, where it was asked several times), and the spread over those times."""

    approach: Approach
    answers: Answers
    score: float
    low: float
    high: float
    values: list[float]
    spread: float | None

    @property
    def said(self) -> Sequence[Sequence[str]]:
        """What it answered, each time that it was asked."""
        return self.answers.repeats or (self.answers.outputs,)

    @classmethod
    def of(cls, metric: Metric, approach: Approach, answers: Answers, expected: Sequence[str]) -> Column:
        """Scored."""
        if not answers.repeats:
            low, high = score_interval(metric, answers.outputs, expected)
            return cls(approach, answers, metric.score(answers.outputs, expected), low, high, metric.rows(answers.outputs, expected), None)
        scores = [metric.score(outputs, expected) for outputs in answers.repeats]
        rows = [metric.rows(outputs, expected) for outputs in answers.repeats]
        means = [statistics.fmean(each) for each in zip(*rows, strict=True)]
        low, high = repeated_interval(metric, answers.repeats, expected)
        return cls(approach, answers, statistics.fmean(scores), low, high, means, statistics.stdev(scores))


def score_columns(task: Task, made: Sequence[Approach], answered: Sequence[Answers]) -> Scored:
    """What a grid shows of columns that have answered the test rows."""
    expected = [item.expected for item in task.test]
    metric = task.metric
    columns = [Column.of(metric, approach, answers, expected) for approach, answers in zip(made, answered, strict=True)]
    pairs = _pairs(columns, metric, expected)
    rows = [
        {
            "approach": column.approach.label,
            metric.name: column.score,
            "ci_low": column.low,
            "ci_high": column.high,
            "spread": column.spread,
            **_against_best_other(column, columns, pairs, metric.sign),
            **column.approach.costs(column.answers),
            "kind": column.approach.kind,
        }
        for column in columns
    ]
    for row, count in zip(rows, break_even_rows(rows, metric), strict=True):
        row["break_even_rows"] = count
    outputs = tuple(
        {
            "row": row,
            "approach": column.approach.label,
            "prompt": item.prompt,
            "output": column.answers.outputs[row],
            "expected": expected[row],
            "correct": bool(metric.rows([column.answers.outputs[row]], [expected[row]])[0]) if metric.binary else None,
            "score": column.values[row],
            "log_probabilities": _by_label(task, column.answers, row),
            "passages": column.answers.cited(row),
        }
        for row, item in enumerate(task.test)
        for column in columns
    )
    return Scored(tuple(rows), outputs, pairs)


def _by_label(task: Task, answers: Answers, row: int) -> dict[str, float] | None:
    return None if answers.label_scores is None else dict(zip(task.labels, answers.label_scores[row], strict=True))


def _pairs(columns: Sequence[Column], metric: Metric, expected: Sequence[str]) -> Records:
    """Each two columns: the difference of their scores with its interval, its p-value, and that adjusted over all pairs."""
    found: list[dict[str, Any]] = [
        {"a": a.approach.label, "b": b.approach.label, **paired(a, b, metric, expected)} for a, b in combinations(columns, 2)
    ]
    holm = adjusted([pair["p_value"] for pair in found])
    return tuple({**pair, "p_adjusted": value} for pair, value in zip(found, holm, strict=True))


def paired(a: Column, b: Column, metric: Metric, expected: Sequence[str]) -> dict[str, float]:
    """What tells one column from another: the difference of their scores (a - b) with its interval, p_value, detectable."""
    if metric.whole is not None:
        return asdict(contrast_of_whole(metric, a.said, b.said, expected))
    return asdict(contrast_of_rows(a.values, b.values, binary=metric.binary and a.spread is None and b.spread is None))


def _against_best_other(column: Column, columns: Sequence[Column], pairs: Records, sign: int) -> dict[str, Any]:
    """The paired test against the best of the others, and the difference of the scores with its 95 % interval."""
    others = [other for other in columns if other is not column]
    names = ("versus", "difference", "difference_low", "difference_high", "p_value", "p_adjusted")
    if not others:
        return dict.fromkeys(names)
    best = max(others, key=lambda other: sign * other.score)
    label, versus = column.approach.label, best.approach.label
    pair = next(each for each in pairs if {each["a"], each["b"]} == {label, versus})
    turned = -1 if pair["a"] == versus else 1
    ends = sorted((turned * pair["low"], turned * pair["high"]))
    return dict(zip(names, (versus, turned * pair["difference"], *ends, pair["p_value"], pair["p_adjusted"]), strict=True))
