"""Metrics by name: each gives a number a row and a score for all rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from nbtune.errors import DataError, SpecError, did_you_mean
from nbtune.metrics.numbers import errors_of
from nbtune.metrics.overlap import row_bleu, row_chrf, squad_exact_match, squad_f1
from nbtune.metrics.several import labels_in
from nbtune.metrics.whole import WHOLE, Whole

__all__ = ["LESS_IS_BETTER", "METRICS", "Metric", "RowScore", "metric_of"]

RowScore = Callable[[str, str], float]
Kind = Literal["generation", "classification", "multi-label", "regression", "tagging", "text"]

METRICS: Final[dict[str, tuple[Kind, ...]]] = {
    "accuracy": ("classification",),
    "macro_f1": ("classification",),
    "micro_f1": ("multi-label",),
    "exact_match": ("generation", "classification", "multi-label"),
    "pearson": ("regression",),
    "spearman": ("regression",),
    "mae": ("regression",),
    "rmse": ("regression",),
    "rouge1": ("generation",),
    "rouge2": ("generation",),
    "rougeL": ("generation",),
    "bleu": ("generation",),
    "chrf": ("generation",),
    "squad_f1": ("generation",),
    "squad_exact_match": ("generation",),
    "span_f1": ("tagging",),
    "word_accuracy": ("tagging",),
    "perplexity": ("text",),
}
"""The metrics by name, and the kinds of task each is for."""
LESS_IS_BETTER: Final = frozenset({"mae", "rmse", "perplexity"})
_SHARES: Final = frozenset({"word_accuracy", "rouge1", "rouge2", "rougeL", "bleu", "chrf", "squad_f1"})
"""Those of which a row has more or less."""
_OUT_OF_100: Final = frozenset({"bleu", "chrf"})
_USUAL: Final = {
    "classification": "accuracy",
    "generation": "exact_match",
    "text": "perplexity",
    "multi-label": "micro_f1",
    "regression": "pearson",
}


@dataclass(frozen=True)
class Metric:
    """A metric: `rows` scores each row, `score` all of them; more is better where it is none of `LESS_IS_BETTER`.

    `binary` says that a row's score is 0 or 1; `whole` is the score where it is no mean of rows; `of_loss`: it compares no texts
    (perplexity); `columns` scores rows that need each other. Outer spaces of outputs and answers never count in the built-in ones;
    a user's function gets both as they are.
    """

    name: str
    binary: bool
    function: RowScore
    whole: Whole | None = None
    of_loss: bool = False
    columns: Callable[[Sequence[str], Sequence[str]], list[float]] | None = None

    @property
    def sign(self) -> int:
        """What to multiply a score by so that more is better: 1 or -1."""
        return -1 if self.name in LESS_IS_BETTER else 1

    @property
    def row_sign(self) -> int:
        """The same of the scores of rows, which are errors where numbers are told."""
        return -1 if self.columns is not None else 1

    @property
    def most(self) -> float | None:
        """The highest score of a row, the lowest being 0; None where that is not known (errors, a user's function)."""
        if self.columns is not None or self.name not in METRICS:
            return None
        return 100.0 if self.name in _OUT_OF_100 else 1.0

    @property
    def margin(self) -> float:
        """A difference of the rows' scores that nobody would pay for: 0.02 of what a score can be, 0 where that is not known."""
        return 0.02 * (self.most or 0.0)

    def rows(self, outputs: Sequence[str], expected: Sequence[str]) -> list[float]:
        """The score of each row; for an F1, which has none, whether the row is right; of numbers the absolute error.

        Raises:
            DataError: unequal lengths; a user's function fails or gives no finite number (says on which row, from 0).
        """
        _refuse_unequal(outputs, expected)
        if self.columns is not None:
            return self.columns(outputs, expected)
        return [_row_score(self.function, self.name, row, *pair) for row, pair in enumerate(zip(outputs, expected, strict=True))]

    def score(self, outputs: Sequence[str], expected: Sequence[str]) -> float:
        """The mean of the rows, or what `whole` makes of all of them.

        Raises:
            DataError: as `rows`; and no rows at all.
        """
        if not expected:
            msg = f"there are no rows to compute {self.name} on"
            raise DataError(msg, hint="give at least one row")
        if self.whole is not None:
            _refuse_unequal(outputs, expected)
            return self.whole.score(outputs, expected)
        scores = self.rows(outputs, expected)
        return math.fsum(scores) / len(scores)


def metric_of(metric: str | RowScore | None, kind: Kind, labels: Sequence[str] = ()) -> Metric:
    """The metric of a name, or of a function (output, expected) -> number, more being better; None: what is usual for the kind.

    A function with the name of a built-in metric is called `my_` and that.

    Raises:
        SpecError: an unknown name, or a metric that is not for this kind of task.
    """
    if metric is None:
        spans = any(label.startswith("B-") for label in labels)
        metric = _USUAL.get(kind, "span_f1" if spans else "word_accuracy")
    if isinstance(metric, Metric):
        return metric
    if kind == "text" and metric != "perplexity":
        msg = f"{metric if isinstance(metric, str) else _name(metric)} is not a metric of text, which has no answers"
        raise SpecError(msg, hint="leave metric out: it is perplexity")
    if callable(metric):
        return Metric(_name(metric), binary=False, function=metric)
    if not isinstance(metric, str):
        msg = f"metric cannot be {metric!r}"
        raise SpecError(msg, hint=f"one of: {', '.join(METRICS)}, or a function (output, expected) -> number")
    if metric not in METRICS:
        near = {name.lower(): name for name in METRICS}.get(metric.lower().replace("-", "").replace("_", ""))
        msg = f"unknown metric {metric!r}"
        raise SpecError(msg, hint=f"did you mean {near!r}?" if near else did_you_mean(metric, METRICS))
    if kind not in METRICS[metric]:
        msg = f"{metric} is not a metric of {kind}"
        raise SpecError(msg, hint=f"say {' or '.join(name for name, kinds in METRICS.items() if kind in kinds)}")
    if metric == "perplexity":
        return Metric(metric, binary=False, function=_nothing_to_compare, of_loss=True)
    if kind == "regression":
        return Metric(metric, binary=False, function=_equal, whole=WHOLE.get(metric), columns=errors_of)
    binary = metric not in _SHARES
    return Metric(metric, binary=binary, function=_same_labels if kind == "multi-label" else _FUNCTIONS[metric], whole=WHOLE.get(metric))


def _name(function: Callable[..., Any]) -> str:
    """Its own; behind `my_` where a built-in metric is called that, of which less may be better, or which has other bounds."""
    name = str(getattr(function, "__name__", type(function).__name__))
    return f"my_{name}" if name in METRICS else name


def _refuse_unequal(outputs: Sequence[str], expected: Sequence[str]) -> None:
    if len(outputs) != len(expected):
        msg = f"{len(outputs)} outputs but {len(expected)} expected answers"
        raise DataError(msg, hint="give one output for each row")


def _row_score(function: RowScore, name: str, row: int, output: str, expected: str) -> float:
    try:
        value = float(function(output, expected))
    except Exception as error:  # a user's function may raise anything
        msg = f"the metric {name} failed on row {row}: {type(error).__name__}: {error}"
        raise DataError(msg, hint=f"it was given the output {output[:60]!r} and the expected {expected[:60]!r}") from error
    if not math.isfinite(value):
        msg = f"the metric {name} gave {value} on row {row}"
        raise DataError(msg, hint="it must give a finite number, more being better")
    return value


def _nothing_to_compare(_output: str, _expected: str) -> float:
    msg = "perplexity is told from a loss, and compares no texts"
    raise DataError(msg, hint="see the run's history and summary")


def _equal(output: str, expected: str) -> float:
    return float(output.strip() == expected.strip())


def _same_labels(output: str, expected: str) -> float:
    return float(set(labels_in(output)) == set(labels_in(expected)))


def _words_right(output: str, expected: str) -> float:
    pairs = list(zip(output.split(" "), expected.split(" "), strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


class _Words:
    """Words as rouge-score finds them in English, and in any other script too, where it would find none."""

    _PATTERN: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

    def tokenize(self, text: str) -> list[str]:
        return self._PATTERN.findall(text.lower())


@cache
def _rouge(name: str) -> RowScore:
    def score(output: str, expected: str) -> float:
        return float(_scorer(name).score(expected, output)[name].fmeasure)

    return score


@cache
def _scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([name], tokenizer=_Words())


_FUNCTIONS: Final[dict[str, RowScore]] = {
    "accuracy": _equal,
    "macro_f1": _equal,
    "exact_match": _equal,
    "span_f1": _equal,
    "word_accuracy": _words_right,
    "rouge1": _rouge("rouge1"),
    "rouge2": _rouge("rouge2"),
    "rougeL": _rouge("rougeL"),
    "bleu": row_bleu,
    "chrf": row_chrf,
    "squad_f1": squad_f1,
    "squad_exact_match": squad_exact_match,
}
