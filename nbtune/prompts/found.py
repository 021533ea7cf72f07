"""What a search has found: every template with its score, the winner, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbtune.metrics.statistics import score_interval

if TYPE_CHECKING:
    import pandas as pd

    from nbtune.metrics.scores import Metric
    from nbtune.prompts.kept import Said
    from nbtune.prompts.variants import Variant

__all__ = ["Found", "Tried"]


@dataclass(frozen=True)
class Tried:
    """A template that was asked: of how many rows, its score with the 95 % interval, and after how many rows it was dropped (None: not)."""

    template: str
    origin: str
    rows: int
    score: float
    low: float
    high: float
    dropped_after: int | None
    prompt_tokens: float

    @classmethod
    def of(cls, metric: Metric, variant: Variant, said: Sequence[Said], expected: Sequence[str], *, dropped_after: int | None) -> Tried:
        """Scored by its answers."""
        outputs = [each.text for each in said]
        low, high = score_interval(metric, outputs, expected)
        tokens = sum(each.tokens for each in said) / len(said)
        return cls(variant.source, variant.origin, len(said), metric.score(outputs, expected), low, high, dropped_after, tokens)


@dataclass(frozen=True)
class Found:
    """`tried`: the winner first, then the others by their score, then those that were dropped, the last one first.

    `rows` says which rows the `total` are that they were scored on; `scoring_calls` of the model went to these, `calibrating_calls` to
    what comes before each template's first row, `other_calls` to proposals and mistakes; `seconds` and `tokens` are those of all calls,
    whenever they were made. `refused` counts proposals that were left out, by the reason; `halved` of the dropped were behind when the
    race was halved, and not shown to be worse.
    """

    metric: Metric
    tried: tuple[Tried, ...]
    winner: Variant
    rows: str
    total: int
    scoring_calls: int
    calibrating_calls: int
    other_calls: int
    seconds: float
    tokens: int
    refused: Mapping[str, int]
    ended: str
    level: float
    halved: int
    trouble: str | None

    @property
    def calls(self) -> int:
        """All calls: rows asked of the model, and proposals asked for."""
        return self.scoring_calls + self.calibrating_calls + self.other_calls

    @property
    def full_calls(self) -> int:
        """What asking every row of every template would have taken."""
        return len(self.tried) * self.total

    @property
    def best(self) -> Tried:
        """The winner with its figures."""
        return self.tried[0]

    @property
    def table(self) -> pd.DataFrame:
        """A row a template: template, origin, rows, <metric>, ci_low, ci_high, dropped_after, prompt_tokens (mean a row)."""
        import pandas as pd

        return pd.DataFrame([self._record(each) for each in self.tried]).astype({"dropped_after": "Int64"})

    def _record(self, each: Tried) -> dict[str, Any]:
        return {
            "template": each.template,
            "origin": each.origin,
            "rows": each.rows,
            self.metric.name: each.score,
            "ci_low": each.low,
            "ci_high": each.high,
            "dropped_after": each.dropped_after,
            "prompt_tokens": each.prompt_tokens,
        }

    @property
    def told(self) -> tuple[str, ...]:
        """What a reader should know of it, in sentences."""
        said = [self._winner(), self._spent()]
        if self.refused:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.refused.items()))
            said.append(f"{sum(self.refused.values())} proposals were left out: {reasons}.")
        if self.ended:
            said.append(f"{self.ended} before all was tried; with more it goes on where it was.")
        return (*said, self.trouble) if self.trouble else tuple(said)

    def _winner(self) -> str:
        best, own, name = self.best, next(each for each in self.tried if each.origin == "task"), self.metric.name
        on = f"{best.rows} of {self.total} rows ({self.rows})"
        if len(self.tried) == 1:
            return f"Nothing else was tried than the task's own prompt: {name} {own.score:.3f} on {on}."
        return (
            f"Best of {len(self.tried)} templates: {name} {best.score:.3f} (95 % {best.low:.3f} to {best.high:.3f}) on {on}; "
            f"the task's own prompt has {own.score:.3f} on {own.rows}. "
            "The score that a template is picked by flatters it: other rows tell what it is worth."
        )

    def _spent(self) -> str:
        worse = sum(each.dropped_after is not None for each in self.tried) - self.halved
        behind = f", {self.halved} because they were in the lower half after a quarter or half of the rows" if self.halved else ""
        share = self.scoring_calls / self.full_calls
        calibrating = f"{self.calibrating_calls:,} to calibrate, " if self.calibrating_calls else ""
        return (
            f"{self.calls:,} calls: {self.scoring_calls:,} to score, {share:.0%} of the {self.full_calls:,} that all rows of all "
            f"templates take, {calibrating}and {self.other_calls:,} to write templates. Dropped were {worse} that are shown to be "
            f"worse than another (at a level of {self.level:g}){behind}."
        )
