"""Curves as they grow, and what is left of them when there are more points than pixels."""

from __future__ import annotations

import math
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Curve", "Points", "pack", "smooth", "thin"]

Points = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a curve, equally long."""


@dataclass
class Curve:
    """A growing curve with rising x; a point at or before the last one takes the place of all from there on (a resumed run)."""

    xs: array[float] = field(default_factory=lambda: array("d"))
    ys: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.xs)

    @property
    def last(self) -> float | None:
        """The newest value."""
        return self.ys[-1] if self.ys else None

    def add(self, x: float, y: float) -> bool:
        """Append a point; False says that older points had to go."""
        rewound = self._cut(bisect_left(self.xs, x))
        self.xs.append(x)
        self.ys.append(y)
        return not rewound

    def rewind(self, x: float) -> bool:
        """Drop the points after `x`; True says that there were some."""
        return self._cut(bisect_right(self.xs, x))

    def _cut(self, kept: int) -> bool:
        rewound = kept < len(self.xs)
        del self.xs[kept:], self.ys[kept:]
        return rewound

    def points(self, limit: int | None = None) -> Points:
        """All points, or at most `limit` of them."""
        return (self.xs, self.ys) if limit is None else thin(self.xs, self.ys, limit)


def thin(xs: Sequence[float], ys: Sequence[float], limit: int) -> Points:
    """At most `limit` points (at least 4) that look the same: the first, the last, and each bucket's lowest and highest between.

    Peaks survive, which a mean or a stride would lose. Values that are not finite are left out where anything else is there.
    """
    total = len(xs)
    if total <= limit:
        return xs, ys
    buckets = (limit - 2) // 2
    kept = [0]
    for bucket in range(buckets):
        start, end = 1 + bucket * (total - 2) // buckets, 1 + (bucket + 1) * (total - 2) // buckets
        finite = [index for index in range(start, end) if math.isfinite(ys[index])]
        if finite:
            kept.extend(sorted({min(finite, key=ys.__getitem__), max(finite, key=ys.__getitem__)}))
    kept.append(total - 1)
    return [xs[index] for index in kept], [ys[index] for index in kept]


def smooth(ys: Sequence[float], weight: float = 0.85) -> list[float]:
    """The mean of an exponential average from the left and one from the right, so that the curve does not lag.

    Short curves are smoothed less; what is not finite stays and does not spread.
    """
    decay = min(weight, 1 - 6 / (len(ys) + 6))
    sums, weights = [0.0] * len(ys), [0.0] * len(ys)
    for forward in (True, False):
        total = seen = 0.0
        for index in range(len(ys)) if forward else reversed(range(len(ys))):
            total, seen = total * decay, seen * decay
            value = ys[index]
            if math.isfinite(value):
                own = 1.0 if forward else 0.0  # the point itself counts once, not once a direction
                sums[index] += total + own * value
                weights[index] += seen + own
                total, seen = total + value, seen + 1
    return [part / whole if math.isfinite(value) else value for value, part, whole in zip(ys, sums, weights, strict=True)]


def pack(seq: int, curves: Sequence[Points]) -> bytes:
    """Little-endian float64: `seq`, the curves' lengths, then each curve's x and y."""
    numbers: list[float] = [seq, *(len(xs) for xs, _ in curves)]
    for xs, ys in curves:
        numbers.extend(xs)
        numbers.extend(ys)
    return struct.pack(f"<{len(numbers)}d", *numbers)
