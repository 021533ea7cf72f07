"""Scores of parts of the test rows: short and long prompts, each label, rows that hold a word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ComparisonError

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.compare.comparison import Comparison
    from nbtune.metrics.scores import Metric

__all__ = ["slices_by"]

_CONTAINS: Final = "contains:"
_WAYS: Final = 'by="length", by="label" or by="contains:WORD"'
Row = Mapping[str, Any]


def slices_by(comparison: Comparison, by: str, *, intervals: bool = True) -> pd.DataFrame:
    """See `Comparison.slices`.

    Raises:
        ComparisonError: unknown `by`, no scores or no labels to slice by, or a word that no row or every row holds.
    """
    import pandas as pd

    if comparison.metric is None:
        raise ComparisonError("inputs without answers have no scores to slice", hint="compare on the task's test rows")
    rows = {int(row["row"]): row for row in comparison.answers}
    parts = _parts(comparison, by, rows)
    whole = _whole(comparison) if by != "label" else None
    found = []
    for name, numbers in parts.items():
        for approach in dict.fromkeys(str(row["approach"]) for row in comparison.rows):
            chosen = [row for row in comparison.answers if row["approach"] == approach and int(row["row"]) in numbers]
            score, low, high = _score(chosen, whole, intervals=intervals)
            found.append({"slice": name, "approach": approach, "rows": len(chosen), "score": score, "ci_low": low, "ci_high": high})
    return pd.DataFrame(found)


def _parts(comparison: Comparison, by: str, rows: Mapping[int, Row]) -> dict[str, set[int]]:
    """{name of a slice: numbers of its rows}."""
    if by == "length":
        return _by_length({number: len(str(row["prompt"])) for number, row in rows.items()})
    if by == "label":
        if comparison.kind != "classification" or not comparison.labels:
            message = f"there are no labels to slice by: the task is of kind {comparison.kind or 'unknown'}"
            raise ComparisonError(message, hint='use by="length" or by="contains:WORD"')
        groups = {label: {number for number, row in rows.items() if row["expected"] == label} for label in comparison.labels}
        return {label: numbers for label, numbers in groups.items() if numbers}
    if not by.startswith(_CONTAINS):
        raise ComparisonError(f"rows are not sliced by {by!r:.60}", hint=f"use {_WAYS}")
    word = by.removeprefix(_CONTAINS).strip()
    if not word:
        raise ComparisonError("contains: names no word", hint='write by="contains:refund"')
    holding = {number for number, row in rows.items() if word.casefold() in str(row["prompt"]).casefold()}
    if not holding or len(holding) == len(rows):
        message = f"{'every' if holding else 'no'} prompt holds {word!r}: there is nothing to tell apart"
        raise ComparisonError(message, hint="name a word that some prompts hold")
    return {f"with {word!r}": holding, f"without {word!r}": set(rows) - holding}


def _by_length(lengths: Mapping[int, int]) -> dict[str, set[int]]:
    """Quartiles by the characters of the prompt; fewer where many are equally long."""
    import numpy as np

    values = list(lengths.values())
    edges: Any = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf") if values else []
    groups: dict[int, set[int]] = {}
    for number, length in sorted(lengths.items(), key=lambda pair: pair[1]):
        groups.setdefault(int(np.searchsorted(edges, length)), set()).add(number)
    return {_range([lengths[number] for number in numbers]): numbers for numbers in groups.values()}


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,} characters" if low == high else f"{low:,} to {high:,} characters"


def _whole(comparison: Comparison) -> Metric | None:
    """The metric, where its score is no mean of the rows' scores; a user's function is one of rows."""
    from nbtune.metrics.scores import METRICS, metric_of

    kind: Any = comparison.kind
    if comparison.metric not in METRICS or kind not in METRICS[comparison.metric]:
        return None
    metric = metric_of(comparison.metric, kind, comparison.labels)
    return metric if metric.whole is not None else None


def _score(rows: Sequence[Row], whole: Metric | None, *, intervals: bool) -> tuple[float, float | None, float | None]:
    """(score, ends of its interval)."""
    from nbtune.metrics.statistics import interval, score_interval

    values = [float(row["score"]) for row in rows]
    if whole is None:
        ends = interval(values, binary=all(value in (0, 1) for value in values)) if intervals else (None, None)
        return math.fsum(values) / len(values), *ends
    outputs, expected = [str(row["output"]) for row in rows], [str(row["expected"]) for row in rows]
    return whole.score(outputs, expected), *(score_interval(whole, outputs, expected) if intervals else (None, None))
