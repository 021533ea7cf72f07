"""What an approach costs, and the axis it is drawn on: linear, or by powers of ten with a place of its own for nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nbtune_widgets.curves import ticks
from nbtune_widgets.formats import count, duration, fine_duration, size

__all__ = ["COSTS", "Cost", "Scale", "seconds_text"]

_WIDE: Final = 20
"""Values farther apart than this factor are drawn by powers of ten."""


def seconds_text(seconds: float | None) -> str:
    """A time that may be very short: "35 µs", "8.2 ms", "1.3 s"."""
    if seconds is not None and 0 < seconds < 1e-4:  # noqa: PLR2004
        return f"{1e6 * seconds:.2g} µs"
    return "0 s" if seconds == 0 else fine_duration(seconds)


@dataclass(frozen=True)
class Cost:
    """A cost as an axis: its title, what it is of a grid's row (None: not known), and how a value is written."""

    title: str
    column: str
    text: Callable[[float], str]
    each: bool = False

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The cost of a row; `each`: of one answer."""
        value = row.get(self.column)
        if value is None or not math.isfinite(value):
            return None
        return float(value) / max(1, int(row.get("rows") or 1)) if self.each else float(value)


COSTS: Final[dict[str, Cost]] = {
    "seconds": Cost("seconds an answer", "seconds", seconds_text, each=True),
    "prompt_tokens": Cost("prompt tokens", "prompt_tokens", count),
    "train_seconds": Cost("training time", "train_seconds", duration),
    "trainable_parameters": Cost("trained parameters", "trainable_parameters", count),
    "adapter_bytes": Cost("size on disk", "adapter_bytes", lambda value: size(value) if value else "0"),
    "peak_memory_bytes": Cost("peak memory of training", "peak_memory_bytes", lambda value: size(value) if value else "0"),
    "train_tokens": Cost("training tokens", "train_tokens", count),
}


@dataclass(frozen=True)
class Scale:
    """From values to places between `low` and `high`; `marks` are (place, text)."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    powers: bool
    none: float | None

    @classmethod
    def of(cls, values: Sequence[float], text: Callable[[float], str], *, wanted: int = 4) -> Scale:
        """The axis that holds the values."""
        there = [value for value in values if value > 0]
        if not there:
            return cls(-0.5, 0.5, ((0.0, text(0.0)),), powers=False, none=None)
        least, most = min(there), max(there)
        if most / least <= _WIDE:
            low = 0.0 if len(there) < len(values) or least < most / 2 or least == most else least - (most - least) * 0.15
            edge = (most - low) * 0.05
            marks = tuple((value, text(value)) for value in ticks(low, most, wanted))
            return cls(low - edge, most + edge, marks, powers=False, none=None)
        first, last = math.log10(least), math.log10(most)
        step = max(1, math.ceil((last - first) / wanted))
        powers = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1, step)
        edge = (last - first) * 0.06
        none = first - 3 * edge if len(there) < len(values) else None
        marks = tuple((float(power), text(10.0**power)) for power in powers)
        marks = ((none, "none"), *marks) if none is not None else marks
        return cls((none if none is not None else first) - edge, last + edge, marks, powers=True, none=none)

    def at(self, value: float) -> float:
        """The place of a value."""
        if not self.powers:
            return value
        return math.log10(value) if value > 0 or self.none is None else self.none

    def part(self, value: float) -> float:
        """How far along the axis it is, from 0 to 1."""
        return (self.at(value) - self.low) / (self.high - self.low)
