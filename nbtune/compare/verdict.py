"""What follows from a grid, in sentences by fixed rules, each with the figures that it rests on; "cannot say" is among the answers.

A kind of column is said to be better than another where one of the first is shown to be better than every one of the second, the choice
among the first paid for (`claims`). Two that are not told apart are called alike only if the interval of their difference leaves no room
for more than the metric's margin, or, where one is merely cheaper, if even their own test, adjusted for nothing, does not tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from nbtune.compare.claims import LEVEL, Claim, claims, p_said
from nbtune.metrics.statistics import adjusted

if TYPE_CHECKING:
    from nbtune.metrics.scores import Metric

__all__ = ["break_even", "break_even_rows", "curve_verdict", "few_rows", "verdict_of"]

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

    def _all(self, *kinds: str) -> list[Row]:
        """Those of some kinds, the best first."""
        return [row for row in self.ranked if row["kind"] in kinds]

    def pair(self, a: Row, b: Row) -> dict[str, Any]:
        """Of a against b, so that more is better for a."""
        found = next(each for each in self._pairs if {each["a"], each["b"]} == {a["approach"], b["approach"]})
        return _turned(found, self._metric.sign * (1 if found["a"] == a["approach"] else -1))

    def _figures(self, a: Row, b: Row, claim: Claim | None = None) -> str:
        """The two scores, the interval of their difference, and the p-value: that of a claim, or of the two alone."""
        found = self.pair(a, b)
        p_text = p_said(found["p_value"]) if claim is None else p_said(claim.p_value, claim.among)
        return f"{_score(a, self._metric)} against {_score(b, self._metric)}, {_interval(found)}, {p_text}"

    def against_floors(self) -> str:
        """Whether anything beats what costs nothing."""
        floors, others = self._all("floor"), self._all("prompting", "tuned")
        if not floors or not others:
            return ""
        floor, made = floors[0], claims(others, floors, self.pair)
        beats = [claim for claim in made if claim.holds]
        if not beats:
            best = others[0]
            return f"Nothing here is shown to beat {floor['approach']}: {best['approach']} has {self._figures(best, floor, made[0])}."
        behind = [claim.candidate["approach"] for claim in made if not claim.holds]
        rest = f" Not shown to: {', '.join(behind)}." if behind else ""
        best = beats[0].candidate
        return (
            f"{best['approach']} beats {floor['approach']}, the best that needs no language model "
            f"({self._figures(best, floor, beats[0])}).{rest}"
        )

    def tuned_or_prompted(self) -> str:
        """Whether to fine-tune."""
        tuned, prompted = self._all("tuned"), self._all("prompting")
        if not tuned or not prompted:
            return ""
        ours, theirs = claims(tuned, prompted, self.pair), claims(prompted, tuned, self.pair)
        if shown := next((claim for claim in ours if claim.holds), None):
            better, rival = shown.candidate, prompted[0]
            figures = self._figures(better, rival, shown)
            return f"Fine-tuning pays here: {better['approach']} is better than the best prompt, {rival['approach']} ({figures})."
        if shown := next((claim for claim in theirs if claim.holds), None):
            better, rival = shown.candidate, tuned[0]
            figures = self._figures(better, rival, shown)
            return f"Prompting is enough here: {better['approach']} is better than what was tuned, {rival['approach']} ({figures})."
        return self._not_told(tuned[0], prompted[0], ours[0])

    def _not_told(self, tuned: Row, prompted: Row, claim: Claim) -> str:
        """What remains to be said of the best of either kind where neither is shown to be better."""
        found, figures = self.pair(tuned, prompted), self._figures(tuned, prompted, claim)
        names = f"{tuned['approach']} and {prompted['approach']}"
        if found["high"] <= self._metric.margin:
            above = f"at most {max(0.0, found['high']):.3f} above {prompted['approach']}"
            return f"Prompting is enough here: {tuned['approach']} is {above} ({self._figures(tuned, prompted)})."
        more = f"so many rows tell differences from about {found['detectable']:.2g}, more test rows would tell smaller ones."
        if found["p_value"] < LEVEL and found["difference"] > 0:
            told = f"of the two alone it would be told ({p_said(found['p_value'])}), but not of the best of {claim.among}"
            return f"Cannot say whether fine-tuning is better than prompting: {tuned['approach']} leads ({figures}); {told}; {more}"
        return f"Cannot say whether fine-tuning is better than prompting: {names} are within noise ({figures}); {more}"

    def cheapest(self) -> str:
        """What trains least among those not told from the best of the tuned."""
        tuned = self._all("tuned")
        if not tuned:
            return ""
        best, rest = tuned[0], tuned[1:]
        alike = [row for row in rest if self.pair(best, row)["p_value"] >= LEVEL]
        least = min((row for row in alike if row["trainable_parameters"] < best["trainable_parameters"]), key=_parameters, default=None)
        if least is None:
            return ""
        return (
            f"{least['approach']} is not told apart from {best['approach']} ({self._figures(least, best)}) and trains "
            f"{int(least['trainable_parameters']):,} numbers in place of {int(best['trainable_parameters']):,}."
        )

    def paid_for(self) -> str:
        """When the training is paid for."""
        tuned = next(iter(self._all("tuned")), None)
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
    """Sizes are asked from the largest down, and no further than where the answer is no, so that their number needs no adjusting."""

    def __init__(self, points: Sequence[Row], pairs: Sequence[Row], metric: Metric) -> None:
        self._points, self._metric = points, metric
        self._pairs = {(pair["a"], pair["a_rows"], pair["b"], pair["b_rows"]): pair for pair in pairs}
        self._sizes = sorted({int(point["train_rows"]) for point in points} - {0})

    def _all(self, kind: str, size: int) -> list[Row]:
        """Those of a kind at a size, the best first."""
        there = [point for point in self._points if point["kind"] == kind and point["train_rows"] in (0, size)]
        return sorted(there, key=lambda point: self._metric.sign * float(point["score"]), reverse=True)

    def _has(self, a: Row, b: Row) -> bool:
        return self._key(a, b) in self._pairs or self._key(b, a) in self._pairs

    def _pair(self, a: Row, b: Row) -> dict[str, Any]:
        """Of a against b, so that more is better for a."""
        straight = self._pairs.get(self._key(a, b))
        return _turned(straight or self._pairs[self._key(b, a)], self._metric.sign * (1 if straight else -1))

    @staticmethod
    def _key(a: Row, b: Row) -> tuple[str, int, str, int]:
        return a["approach"], a["train_rows"], b["approach"], b["train_rows"]

    def starts_to_pay(self) -> str:
        """Where fine-tuning starts to be better than prompting, and is so at all larger sizes."""
        each = [(size, self._all("tuned", size), self._all("prompting", size)) for size in self._sizes]
        known = [(size, tuned, prompted) for size, tuned, prompted in each if tuned and prompted]
        if not known:
            return ""
        first: tuple[int, Claim, Row] | None = None
        for size, tuned, prompted in reversed(known):
            shown = next((claim for claim in claims(tuned, prompted, self._pair) if claim.holds), None)
            if shown is None:
                break
            first = (size, shown, prompted[0])
        if first is not None:
            size, shown, rival = first
            least = ", the fewest that were tried" if size == known[0][0] else ""
            figures = self._figures(shown.candidate, rival, shown)
            return f"Fine-tuning starts to be better than prompting at {size:,} training rows{least} ({figures})."
        size, tuned, prompted = known[-1]
        shown = next((claim for claim in claims(prompted, tuned, self._pair) if claim.holds), None)
        if shown is not None:
            return f"Up to {size:,} training rows prompting is better than fine-tuning ({self._figures(shown.candidate, tuned[0], shown)})."
        figures = self._figures(tuned[0], prompted[0], claims(tuned, prompted, self._pair)[0])
        return f"Cannot say at how many training rows fine-tuning starts to be better than prompting: not shown up to {size:,} ({figures})."

    def _figures(self, a: Row, b: Row, claim: Claim) -> str:
        scores = f"{a['approach']} {a['score']:.3f} against {b['approach']} {b['score']:.3f}"
        return f"{scores}, {_interval(self._pair(a, b))}, {p_said(claim.p_value, claim.among)}"

    def more_rows(self) -> str:
        """Whether the best of the tuned, else of the prompted, still gained by the last step of the curve."""
        if len(self._sizes) < 2:  # noqa: PLR2004
            return ""
        size, least = self._sizes[-1], self._sizes[-2]
        before = {point["approach"]: point for point in self._points if point["train_rows"] == least}
        there = self._all("tuned", size) or self._all("prompting", size)
        stepped = [point for point in there if point["approach"] in before and self._has(point, before[point["approach"]])]
        if not stepped or stepped[0] is not there[0]:
            return ""
        best, pairs = stepped[0], [self._pair(point, before[point["approach"]]) for point in stepped]
        pair, p_value = pairs[0], adjusted([each["p_value"] for each in pairs])[0]
        step = f"from {least:,} to {size:,} training rows {best['approach']}"
        scores = f"{before[best['approach']]['score']:.3f} to {best['score']:.3f}"
        figures = f"{scores}, {_interval(pair)}, {p_said(p_value, len(pairs))}"
        if p_value < LEVEL:
            helps, became = ("still help", "better") if pair["difference"] > 0 else ("do not help", "worse")
            return f"More training rows {helps}: {step} became {became} ({figures})."
        if pair["high"] <= self._metric.margin:
            return f"More training rows promise little: {step} gained at most {max(0.0, pair['high']):.3f} ({figures})."
        return f"Cannot say whether more training rows would help: {step} is within noise ({figures})."


def _turned(pair: Row, sign: int) -> dict[str, Any]:
    """A pair the other way round, or so that more is better."""
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    return {**pair, "difference": sign * pair["difference"], "low": low, "high": high}


def _interval(pair: Row) -> str:
    return f"{pair['low']:+.3f} to {pair['high']:+.3f}"


def _parameters(row: Row) -> int:
    return int(row["trainable_parameters"])


def _score(row: Row, metric: Metric) -> str:
    return f"{row[metric.name]:.3f}"
