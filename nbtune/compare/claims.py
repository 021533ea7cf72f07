"""Which of several columns is better than every one of its rivals, said so that choosing among many is paid for.

"Better than every one" is an intersection-union test (Berger 1982, https://doi.org/10.1080/00401706.1982.10487790): the largest p-value of
the paired tests against the rivals holds as it is, however many rivals there are. What has to be paid for is that the best of several
candidates is looked at: those p-values are adjusted over the candidates by Holm's method. Testing each two columns of the grid would cost
far more (17 columns are 136 pairs) and answer questions that nobody has asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nbtune.metrics.statistics import adjusted

__all__ = ["LEVEL", "Claim", "claims", "p_said"]

LEVEL: Final = 0.05

Row = Mapping[str, Any]
Pair = Mapping[str, Any]
PairOf = Callable[[Row, Row], Pair]
"""(a, b) -> what tells them apart, turned so that more is better for a: difference, low, high, p_value."""


@dataclass(frozen=True)
class Claim:
    """That a candidate is better than every rival.

    Attributes:
        candidate: of which it is said.
        p_value: of "it is no better than one of them", two-sided tests, adjusted over the candidates.
        among: how many candidates there were to choose from.
    """

    candidate: Row
    p_value: float
    among: int

    @property
    def holds(self) -> bool:
        """Whether it is shown."""
        return self.p_value < LEVEL


def claims(candidates: Sequence[Row], rivals: Sequence[Row], pair_of: PairOf) -> list[Claim]:
    """One for each candidate, in their order; of several questions that are asked at once, each has its own."""
    hardest = [max((_shown(pair_of(one, rival)) for rival in rivals), default=1.0) for one in candidates]
    return [Claim(one, value, len(candidates)) for one, value in zip(candidates, adjusted(hardest), strict=True)]


def _shown(pair: Pair) -> float:
    return float(pair["p_value"]) if pair["difference"] > 0 else 1.0


def p_said(p_value: float, among: int = 1) -> str:
    """A p-value with what it was adjusted for."""
    told = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"  # noqa: PLR2004
    return f"{told} with {among} to choose from" if among > 1 else told
