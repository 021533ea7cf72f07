"""Where the time of a step goes, how full its batches are, and how long the rest will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nbtune.events import Step

__all__ = ["PARTS", "Pace"]

PARTS: Final = ("data", "forward", "backward", "optimizer")
"""What a step's seconds are split into, in their order."""


@dataclass
class Pace:
    """Means over all steps since training began or went on, but for the first, which warms up."""

    steps: int = 0
    last: Step | None = None
    _first: Step | None = None
    _fill: float = 0.0
    _parts: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))

    def add(self, step: Step) -> None:
        """Take in one step; one that was done before begins anew."""
        if self.last is not None and step.step <= self.last.step:
            self.restart()
        self.last = step
        if self._first is None:
            self._first = step
            return
        self.steps += 1
        self._fill += step.fill
        for index, part in enumerate(PARTS):
            self._parts[index] += float(getattr(step, f"{part}_seconds"))

    def restart(self) -> None:
        """Forget what was measured: the next step is a first one again."""
        self.steps, self.last, self._first, self._fill, self._parts = 0, None, None, 0.0, [0.0] * len(PARTS)

    @property
    def fill(self) -> float | None:
        """The part of the batches that is real tokens, 0 to 1; None while it is not known."""
        return self._fill / self.steps if self.parts else None

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of a step by part; {} while they are not known (older folders do not tell)."""
        if not self.steps or not sum(self._parts) > 0:
            return {}
        return {part: total / self.steps for part, total in zip(PARTS, self._parts, strict=True)}

    def seconds_left(self, total: int) -> float | None:
        """Seconds to step `total`; None before the second step."""
        if self.last is None or self._first is None or not self.steps:
            return None
        done = self.last.step - self._first.step
        return (total - self.last.step) * (self.last.seconds - self._first.seconds) / done
