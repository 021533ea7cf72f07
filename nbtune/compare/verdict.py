"""What follows from a grid, in sentences by fixed rules, each with the figures that it rests on; "cannot say" is among the answers.

One column is said to be better than another where the paired test, adjusted over all pairs of the grid, is below 0.05. Two that are not
told apart are called alike only if the interval of their difference leaves no room for more than `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nbtune.metrics.scores import Metric

__all__ = ["LEVEL", "MARGIN", "break_even", "break_even_rows", "curve_verdict", "few_rows", "verdict_of"]

LEVEL: Final = 0.05
MARGIN: Final = 0.02
"""A difference that nobody would pay for, of scores between 0 and 1."""
_FEW: Final = 100
_NOTICED: Final = 0.05
"""Part of an answer's seconds below which two measurements of them are alike."""

Row = Mapping[str, Any]


def verdict_of(rows: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> tuple[str, ...]:
    """The sentences; none where there is nothing to compare."""
    grid = _Grid(rows, pairs, metric)
    if len(rows) < 2:  # noqa: PLR2004
        return ()
    said = [grid.against_floors(), grid.tuned_or_prompted(), grid.cheapest(), grid.paid_for()]
    return tuple(sentence for sentence in said if sentence)


def few_rows(rows: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> list[str]:
    """What so many rows can tell, where they are few."""
    count = int(rows[0]["rows"]) if rows else 0
    if count >= _FEW or len(rows) < 2:  # noqa: PLR2004
        return []
    grid = _Grid(rows, pairs, metric)
    first, second = grid.ranked[:2]
    least = grid.pair(first, second)["detectable"]
    between = f"a difference between {first['approach']} and {second['approach']}"
    return [f"{count} test rows are few: {between} would have to be about {least:.2g} to be found four times in five"]


def break_even(prompted: Row, tuned: Row) -> int | None:
    """After how many answers the seconds of training are won back by shorter prompts; None: never, or by less than clocks tell."""
    rows = max(1, int(tuned["rows"]))
    won = (float(prompted["seconds"]) - float(tuned["seconds"])) / rows
    noticed = won > _NOTICED * float(prompted["seconds"]) / rows
    return max(1, round(float(tuned["train_seconds"]) / won)) if noticed else None


def break_even_rows(rows: Sequence[Row], metric: Metric) -> list[int | None]:
    """`break_even` of each tuned row that took some training, against the best of those that prompt with more tokens; None elsewhere."""
    ranked = sorted(rows, key=lambda row: metric.sign * float(row[metric.name]), reverse=True)
    found: list[int | None] = []
    for row in rows:
        prompted = _longer(ranked, row) if row["kind"] == "tuned" and row["train_seconds"] else None
        found.append(None if prompted is None else break_even(prompted, row))
    return found


def _longer(ranked: Sequence[Row], tuned: Row) -> Row | None:
    """The best that prompts with more tokens than a tuned row does."""
    return next((row for row in ranked if row["kind"] == "prompting" and row["prompt_tokens"] > tuned["prompt_tokens"]), None)


class _Grid:
    def __init__(self, rows: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> None:
        self._pairs, self._metric = pairs, metric
        self.ranked = sorted(rows, key=self._goodness, reverse=True)

    def _goodness(self, row: Row) -> float:
        return self._metric.sign * float(row[self._metric.name])

    def best(self, kind: str) -> Row | None:
        return next((row for row in self.ranked if row["kind"] == kind), None)

    def pair(self, a: Row, b: Row) -> dict[str, Any]:
        """Of a against b, so that more is better for a."""
        found = next(each for each in self._pairs if {each["a"], each["b"]} == {a["approach"], b["approach"]})
        sign = self._metric.row_sign * (1 if found["a"] == a["approach"] else -1)
        low, high = sorted((sign * found["low"], sign * found["high"]))
        return {**found, "difference": sign * found["difference"], "low": low, "high": high}

    def _better(self, a: Row, b: Row) -> bool:
        found = self.pair(a, b)
        return bool(found["p_adjusted"] < LEVEL and found["difference"] > 0)

    def _figures(self, a: Row, b: Row) -> str:
        found = self.pair(a, b)
        return f"{_score(a, self._metric)} against {_score(b, self._metric)}, {_told(found)}"

    def against_floors(self) -> str:
        """Whether anything beats what costs nothing."""
        floor = self.best("floor")
        others = [row for row in self.ranked if row["kind"] in ("prompting", "tuned")]
        if floor is None or not others:
            return ""
        beats = [row for row in others if self._better(row, floor)]
        if not beats:
            best = others[0]
            return f"Nothing here is shown to beat {floor['approach']}: {best['approach']} has {self._figures(best, floor)}."
        behind = [row["approach"] for row in others if row not in beats]
        rest = f" Not shown to: {', '.join(behind)}." if behind else ""
        figures = self._figures(beats[0], floor)
        return f"{beats[0]['approach']} beats {floor['approach']}, the best that needs no language model ({figures}).{rest}"

    def tuned_or_prompted(self) -> str:
        """Whether to fine-tune."""
        tuned, prompted = self.best("tuned"), self.best("prompting")
        if tuned is None or prompted is None:
            return ""
        figures = self._figures(tuned, prompted)
        if self._better(tuned, prompted):
            return f"Fine-tuning pays here: {tuned['approach']} is better than the best prompt, {prompted['approach']} ({figures})."
        if self._better(prompted, tuned):
            return f"Prompting is enough here: {prompted['approach']} is better than what was tuned, {tuned['approach']} ({figures})."
        found = self.pair(tuned, prompted)
        if found["high"] <= MARGIN:
            above = f"at most {max(0.0, found['high']):.3f} above {prompted['approach']}"
            return f"Prompting is enough here: {tuned['approach']} is {above} ({figures})."
        return (
            f"Cannot say whether fine-tuning is better than prompting: {tuned['approach']} and {prompted['approach']} are within noise "
            f"({figures}); so many rows tell differences from about {found['detectable']:.2g}, more test rows would tell smaller ones."
        )

    def cheapest(self) -> str:
        """What trains least among those not told from the best of the tuned."""
        best = self.best("tuned")
        if best is None:
            return ""
        alike = [row for row in self.ranked if row["kind"] == "tuned" and row is not best and self.pair(best, row)["p_adjusted"] >= LEVEL]
        least = min((row for row in alike if row["trainable_parameters"] < best["trainable_parameters"]), key=_parameters, default=None)
        if least is None:
            return ""
        return (
            f"{least['approach']} is not told apart from {best['approach']} ({self._figures(least, best)}) and trains "
            f"{int(least['trainable_parameters']):,} numbers in place of {int(best['trainable_parameters']):,}."
        )

    def paid_for(self) -> str:
        """When the training is paid for."""
        tuned = self.best("tuned")
        shots = None if tuned is None else _longer(self.ranked, tuned)
        if tuned is None or shots is None or not tuned["train_seconds"]:
            return ""
        count = break_even(shots, tuned)
        if count is None:
            return f"{tuned['approach']} answers no faster here than {shots['approach']}: its training is not paid for by shorter prompts."
        each = f"{shots['seconds'] / shots['rows']:.3f} and {tuned['seconds'] / tuned['rows']:.3f} s an answer"
        return (
            f"By its shorter prompts {tuned['approach']} has paid for its {tuned['train_seconds']:,.0f} s of training "
            f"after about {count:,} answers, against {shots['approach']} ({each})."
        )


def curve_verdict(points: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> tuple[str, ...]:
    """What a learning curve says: where fine-tuning starts to be better than prompting, and whether more rows still help.

    `points` are records of `Comparison.curve`; `pairs` those of two points: a, a_rows, b, b_rows, and what tells them apart.
    """
    curve = _Curve(points, pairs, metric)
    return tuple(sentence for sentence in (curve.starts_to_pay(), curve.more_rows()) if sentence)


class _Curve:
    def __init__(self, points: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> None:
        self._points, self._metric = points, metric
        self._pairs = {(pair["a"], pair["a_rows"], pair["b"], pair["b_rows"]): pair for pair in pairs}
        self._sizes = sorted({int(point["train_rows"]) for point in points} - {0})

    def _best(self, kind: str, size: int) -> Row | None:
        there = [point for point in self._points if point["kind"] == kind and point["train_rows"] in (0, size)]
        return max(there, key=lambda point: self._metric.sign * float(point["score"]), default=None)

    def _pair(self, a: Row, b: Row) -> dict[str, Any] | None:
        """Of a against b, so that more is better for a."""
        found = self._pairs.get((a["approach"], a["train_rows"], b["approach"], b["train_rows"]))
        if found is None:
            return None
        sign = self._metric.row_sign
        low, high = sorted((sign * found["low"], sign * found["high"]))
        return {**found, "difference": sign * found["difference"], "low": low, "high": high}

    def starts_to_pay(self) -> str:
        """Where fine-tuning starts to be better than prompting, and is so at all larger sizes."""
        rivals = [(size, self._best("tuned", size), self._best("prompting", size)) for size in self._sizes]
        told = [(size, a, b, self._pair(a, b)) for size, a, b in rivals if a is not None and b is not None]
        known = [(size, a, b, pair) for size, a, b, pair in told if pair is not None]
        if not known:
            return ""
        first = None
        for size, a, b, pair in reversed(known):
            if not _shows_better(pair):
                break
            first = (size, a, b, pair)
        size, a, b, pair = first or known[-1]
        figures = f"{a['approach']} {a['score']:.3f} against {b['approach']} {b['score']:.3f}, {_told(pair)}"
        if first is not None:
            least = ", the fewest that were tried" if size == known[0][0] else ""
            return f"Fine-tuning starts to be better than prompting at {size:,} training rows{least} ({figures})."
        if _shows_better(pair, -1):
            return f"Up to {size:,} training rows prompting is better than fine-tuning ({figures})."
        return f"Cannot say at how many training rows fine-tuning starts to be better than prompting: not shown up to {size:,} ({figures})."

    def more_rows(self) -> str:
        """Whether the best of the tuned, else of the prompted, still gained by the last step of the curve."""
        if len(self._sizes) < 2:  # noqa: PLR2004
            return ""
        size, least = self._sizes[-1], self._sizes[-2]
        best = self._best("tuned", size) or self._best("prompting", size)
        before = next((one for one in self._points if best and (one["approach"], one["train_rows"]) == (best["approach"], least)), None)
        pair = self._pair(best, before) if best is not None and before is not None else None
        if best is None or before is None or pair is None:
            return ""
        step = f"from {least:,} to {size:,} training rows {best['approach']}"
        figures = f"{before['score']:.3f} to {best['score']:.3f}, {_told(pair)}"
        if _shows_better(pair):
            return f"More training rows still help: {step} became better ({figures})."
        if _shows_better(pair, -1):
            return f"More training rows do not help: {step} became worse ({figures})."
        if pair["high"] <= MARGIN:
            return f"More training rows promise little: {step} gained at most {max(0.0, pair['high']):.3f} ({figures})."
        return f"Cannot say whether more training rows would help: {step} is within noise ({figures})."


def _shows_better(pair: Row, sign: int = 1) -> bool:
    return bool(pair["p_adjusted"] < LEVEL and sign * pair["difference"] > 0)


def _told(pair: Row) -> str:
    """A difference's interval and its adjusted p-value."""
    p_value = pair["p_adjusted"]
    return f"{pair['low']:+.3f} to {pair['high']:+.3f}, " + ("p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}")  # noqa: PLR2004


def _parameters(row: Row) -> int:
    return int(row["trainable_parameters"])


def _score(row: Row, metric: Metric) -> str:
    return f"{row[metric.name]:.3f}"
