"""Where a training is: all that a checkpoint keeps beside its tensors, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

__all__ = ["State"]


@dataclass
class State:
    """After `step` optimizer steps.

    There is no random state to keep: what is random in a micro-batch is drawn from (seed, step, its first row), and a step's rows from
    (seed, epoch). `micro_rows` is the batch size that still fits (an out-of-memory halves it); the bits depend on `threads`, torch's, and
    on `cached`, whether frozen blocks were computed once. `interval_*` sum the loss since the last look at dev; `best` is the best score
    so far, the higher the better, and `best_scores` are all figures of that look, as `scores` are of the last. `before` are the scores of
    the base, where a task is measured by its loss.
    """

    step: int = 0
    num_tokens: int = 0
    seconds: float = 0.0
    micro_rows: int = 0
    threads: int = 0
    cached: bool | None = None
    interval_loss: float = 0.0
    interval_tokens: int = 0
    best: float | None = None
    best_step: int | None = None
    best_scores: dict[str, float] = field(default_factory=dict)
    looks_since_best: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> Self:
        """The state in a checkpoint's state.json."""
        return cls(**{item.name: saved[item.name] for item in fields(cls) if item.name in saved})

    def summary(self, kept: int) -> dict[str, Any]:
        """Its part of a run's summary, with the scores of what is kept: as it was at step `kept`, the best or the last."""
        told = {
            "steps": self.step,
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
            "scores": (kept == self.best_step and self.best_scores) or self.scores,  # older checkpoints have no best_scores
            "best_step": self.best_step,
        }
        return {"steps": self.step, **told, **({"scores_before": self.before} if self.before else {})}

    def to_json(self) -> dict[str, Any]:
        """What state.json keeps."""
        return asdict(self)

    def take_interval(self) -> float:
        """The mean loss a trained token since this was asked before (NaN: there was none)."""
        mean = self.interval_loss / self.interval_tokens if self.interval_tokens else math.nan
        self.interval_loss, self.interval_tokens = 0.0, 0
        return mean

    def is_better(self, score: float, threshold: float, scores: dict[str, float]) -> bool:
        """Notes a look at dev; whether it is the best so far, by more than `threshold`."""
        self.scores = scores
        better = math.isfinite(score) and (self.best is None or score > self.best + threshold)
        if better:
            self.best, self.best_step, self.best_scores, self.looks_since_best = score, self.step, scores, 0
        else:
            self.looks_since_best += 1
        return better
