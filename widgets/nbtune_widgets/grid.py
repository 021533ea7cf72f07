"""The grid of a comparison: a table of scores, and one of what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from nbtune.metrics.scores import LESS_IS_BETTER
from nbtune_widgets.answers import records
from nbtune_widgets.costs import COSTS, seconds_text
from nbtune_widgets.formats import NOTHING, count, duration, figure, one_line, size
from nbtune_widgets.markup import table
from nbtune_widgets.protocols import ComparisonView

__all__ = ["Grid", "p_text", "signed"]

_ROUNDING: Final = 1e-9
"""What rounding leaves of a difference that is none."""

_PARTS: Final = ("ci_low", "ci_high", "versus", "difference_low", "difference_high", "rows", "kind", "p_value")
_TESTS: Final = {"difference": "against the best other", "p_adjusted": "p", "spread": "over seeds"}
_COSTS: Final = {
    "trainable_parameters": "trained parameters",
    "adapter_bytes": "on disk",
    "peak_memory_bytes": "peak memory",
    "train_seconds": "training",
    "train_tokens": "training tokens",
    "seconds": "answering all",
    "each": "an answer",
    "prompt_tokens": "prompt tokens",
    "break_even_rows": "paid for after answers",
}


@dataclass(frozen=True)
class Grid:
    """The rows of a comparison's table, as they are written; `extra` are columns that nothing is known of here."""

    metric: str
    rows: Sequence[dict[str, Any]]
    extra: tuple[str, ...]

    @classmethod
    def of(cls, comparison: ComparisonView) -> Grid:
        """Of what there is."""
        rows = [{**row, "each": COSTS["seconds"].of(row)} for row in records(comparison.table)]
        known = {"approach", comparison.metric, *_PARTS, *_TESTS, *_COSTS}
        extra = tuple(key for key in (rows[0] if rows else {}) if key not in known and any(row.get(key) is not None for row in rows))
        return cls(comparison.metric or "", rows, extra)

    @property
    def scored(self) -> bool:
        """Whether anything has a score."""
        return any(isinstance(row.get(self.metric), int | float) for row in self.rows)

    def scores(self) -> list[list[str]]:
        """The table of scores as texts, its head first."""
        names = [*self._there(_TESTS), *self.extra]
        head = ["approach", one_line(self.metric, 40), "95 % interval", *(_TESTS.get(name, _words(name)) for name in names)]
        return [head, *([self._name(row), *self._score(row), *(_cell(name, row) for name in names)] for row in self.rows)]

    def costs(self) -> list[list[str]]:
        """The table of costs as texts, its head first; empty where none is known."""
        names = self._there(_COSTS)
        body = [[one_line(row.get("approach"), 60), *(_cell(name, row) for name in names)] for row in self.rows]
        return [["approach", *(_COSTS[name] for name in names)], *body] if names else []

    def scores_html(self) -> Markup:
        """The table of scores, a bar for each interval."""
        head, *body = self.scores()
        cells = [self._cells(number, *pair) for number, pair in enumerate(zip(self.rows, body, strict=True), start=1)]
        names = self._there(_TESTS)
        caption = f"{one_line(self.metric, 40)} by approach" + (
            "; p: paired test against the best other, adjusted over all pairs (Holm)" if "p_adjusted" in names else ""
        )
        best = frozenset(number for number, row in enumerate(self.rows) if self._is_best(row))
        return table(caption, head, cells, numeric=frozenset(range(1, len(head))), best=best, named=True)

    def costs_html(self) -> Markup:
        """The table of costs, which can be folded."""
        costs = self.costs()
        if not costs:
            return Markup("")
        below = table("", costs[0], costs[1:], numeric=frozenset(range(1, len(costs[0]))), named=True)
        return Markup("<details open><summary>What it takes</summary>{}</details>").format(below)

    def _cells(self, number: int, row: dict[str, Any], texts: Sequence[str]) -> list[str | Markup]:
        names = [*self._there(_TESTS), *self.extra]
        rest = [_difference_html(row) if name == "difference" else text for name, text in zip(names, texts[3:], strict=True)]
        interval = Markup("{} <small>{}</small>").format(self._bar(row), texts[2])
        return [self._head(number, row), Markup("<b>{}</b>").format(texts[1]), interval, *rest]

    def _there(self, names: dict[str, str]) -> list[str]:
        return [name for name in names if any(row.get(name) is not None for row in self.rows)]

    def _score(self, row: dict[str, Any]) -> tuple[str, str]:
        low, high = row.get("ci_low"), row.get("ci_high")
        return figure(row.get(self.metric)), f"{figure(low)} to {figure(high)}" if low is not None and high is not None else NOTHING

    def _name(self, row: dict[str, Any]) -> str:
        return one_line(row.get("approach"), 60) + ("  (best)" if self._is_best(row) else "")

    def _head(self, number: int, row: dict[str, Any]) -> Markup:
        pill = Markup(' <span class="nbt-pill">best</span>') if self._is_best(row) else Markup("")
        before = Markup('<small class="nbt-dim">{}</small> ').format(number) if len(self.rows) > 1 else Markup("")
        return Markup("{}{}{}").format(before, one_line(row.get("approach"), 60), pill)

    def _is_best(self, row: dict[str, Any]) -> bool:
        scores = [float(each[self.metric]) for each in self.rows if isinstance(each.get(self.metric), int | float)]
        best = min if self.metric in LESS_IS_BETTER else max
        return len(self.rows) > 1 and bool(scores) and row.get(self.metric) == best(scores)

    def _bar(self, row: dict[str, Any]) -> Markup:
        low, high, score = row.get("ci_low"), row.get("ci_high"), row.get(self.metric)
        if low is None or high is None or score is None:
            return Markup("")
        values = [value for each in self.rows for key in (self.metric, "ci_low", "ci_high") if (value := each.get(key)) is not None]
        left, right = min(0.0, *values), max(1.0, *values)
        at = [f"{2 + 116 * (value - left) / (right - left):.1f}" for value in (max(0.0, left), score, low, high)]
        return Markup(
            '<svg viewBox="0 0 120 14" width="120" height="14" aria-hidden="true" class="nbt-scale">'
            '<path d="M{0} 7H{1}" stroke="currentColor" stroke-opacity=".2" stroke-width="8"/>'
            '<path d="M{2} 7H{3}M{2} 3V11M{3} 3V11" stroke="currentColor" stroke-width="1.3" fill="none"/>'
            '<circle cx="{1}" cy="7" r="3" fill="{4}"/></svg>'
        ).format(*at, Markup("var(--nbt-a,#0072b2)"))


def signed(value: float) -> str:
    """A difference, with its sign."""
    return ("+" if value > 0 else "") + figure(0.0 if abs(value) < _ROUNDING else value)


def p_text(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004


def _difference(row: dict[str, Any]) -> str:
    """Both sides of the interval have their sign, so that one sees whether it excludes 0."""
    value, low, high = (row.get(key) for key in ("difference", "difference_low", "difference_high"))
    if value is None:
        return NOTHING
    return signed(value) + (f" ({signed(low)} to {signed(high)})" if low is not None and high is not None else "")


def _difference_html(row: dict[str, Any]) -> Markup:
    value, _, interval = _difference(row).partition(" (")
    versus = "" if row.get("versus") is None else f" vs {one_line(row['versus'], 60)}"
    small = Markup("<br><small>{}</small>").format(interval.removesuffix(")") + versus) if interval or versus else Markup("")
    return Markup("{}{}").format(value, small)


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row.get(name)
    if name == "difference":
        return _difference(row)
    if value is None:
        return NOTHING
    if name == "p_adjusted":
        return p_text(value)
    if name == "spread":
        return f"± {figure(value)}"
    if name.endswith("_bytes"):
        return size(value)
    if name in ("each", "seconds"):
        return seconds_text(float(value))
    if name.endswith("seconds"):
        return duration(float(value)) if value else NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or name in _COSTS:
        return count(value) if value else NOTHING
    return figure(value) if isinstance(value, float) else one_line(value, 60)


def _words(name: str) -> str:
    return one_line(name.replace("_", " "), 40)
