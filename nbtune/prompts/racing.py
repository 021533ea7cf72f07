"""Racing: variants are asked block by block on the same rows, and one is left out once it is shown to be worse than another.

That is successive elimination (Maron and Moore 1993, "Hoeffding Races"; Even-Dar et al. 2006,
https://www.jmlr.org/papers/v7/evendar06a.html) with a paired test by betting (Waudby-Smith and Ramdas 2024,
https://arxiv.org/abs/2010.09686): against each variant it is bet, row by row, that another one scores higher. A variant that is as good as
all others loses such bets as often as it wins them, so that the wealth won from it has a mean of at most 1, and reaches 1 / level with a
chance of at most `level` (Ville 1939), however many variants there are and however often one looks.

Variants that are alike are never told apart, and would all be asked every row. So the race is also halved (Karnin et al. 2013,
https://proceedings.mlr.press/v28/karnin13.html): after a quarter and after half of the rows the better half of those there were goes on,
which of variants that are alike leaves any, and takes at most half of the calls of three or more on 32 rows or more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCK", "Bets", "Race", "race"]

BLOCK: Final = 8
"""Rows between two looks."""
_STAKES: Final = 20

Ask = Callable[[int, int, int], Sequence[float]]
"""The scores of variant `number` on the rows from one place to another; the higher the better."""


@dataclass(frozen=True)
class Race:
    """How many rows those that were kept were asked, and after how many each of the others was dropped.

    `halved` are those of the others that were not shown to be worse, but stood in the lower half.
    """

    rows: int
    dropped_after: tuple[int | None, ...]
    halved: frozenset[int] = frozenset()

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the variants that nothing speaks against."""
        return tuple(number for number, rows in enumerate(self.dropped_after) if rows is None)


class Bets:
    """The wealth won by betting against each of `count` variants that another scores higher.

    Of a row's gain g = score of the other - its own, the share x of what there is becomes (1 + x g) of it; `against` is the mean over
    shares x between 0 and 1 and over all others. Scores within [0, 1] are `bounded`; of others only the sign of g counts.
    """

    def __init__(self, count: int, *, bounded: bool = True) -> None:
        import numpy as np

        self._bounded = bounded
        self._shares = (np.arange(_STAKES) + 0.5) / _STAKES
        self._wealth = np.zeros((count, count, _STAKES))

    def add(self, numbers: Sequence[int], scores: NDArray[np.float64]) -> None:
        """Settles the bets among the variants `numbers` by their scores [variants, rows] on further rows."""
        import numpy as np

        gains = scores[None, :, :] - scores[:, None, :]
        gains = gains if self._bounded else np.sign(gains)
        self._wealth[np.ix_(numbers, numbers)] += np.log1p(gains[..., None] * self._shares).sum(axis=2)

    def against(self) -> NDArray[np.float64]:
        """The wealth [variants] won against each; 1 at the beginning."""
        import numpy as np

        count = len(self._wealth)
        if count == 1:
            return np.ones(1)
        found: NDArray[np.float64] = (np.exp(self._wealth).mean(axis=2).sum(axis=1) - 1) / (count - 1)  # it does not bet with itself
        return found


def _always(_racing: Sequence[int], _upto: int) -> bool:
    return True


def race(
    count: int,
    total: int,
    ask: Ask,
    *,
    level: float = 0.05,
    block: int = BLOCK,
    bounded: bool = True,
    halve: Sequence[int] = (),
    affords: Callable[[Sequence[int], int], bool] = _always,
) -> Race:
    """Asks `count` variants the same rows, of which there are `total`, and drops who is shown to be worse at `level`.

    Args:
        count: how many variants.
        total: how many rows.
        ask: asks one of them.
        level: the chance that a variant is dropped which is as good as every other.
        block: most rows between two looks, and least rows before the race is halved.
        bounded: whether all scores are within [0, 1].
        halve: of these variants half go on after a quarter of the rows, and a quarter after half of them; whose answers are known already
            costs nothing, and need not be among them.
        affords: whether those still racing may be asked up to a row; where not, the race ends before it.
    """
    import numpy as np

    bets, racing, rows = Bets(count, bounded=bounded), list(range(count)), 0
    dropped: list[int | None] = [None] * count
    halved, sums = set[int](), np.zeros(count)
    rungs = [(max(block, total // 4), max(1, len(halve) // 2)), (max(block, total // 2), max(1, len(halve) // 4))] if halve else []

    def drop(numbers: Sequence[int]) -> None:
        for number in numbers:
            dropped[number] = rows
            racing.remove(number)

    while rows < total and affords(racing, upto := min(total, rows + block, *(rung for rung, _ in rungs))):
        scores = np.asarray([ask(number, rows, upto) for number in racing], dtype=np.float64)
        bets.add(racing, scores)
        sums[racing] += scores.sum(axis=1)
        rows = upto
        against = bets.against()
        drop([number for number in racing if against[number] >= 1 / level])
        while rungs and rungs[0][0] <= rows < total:
            _, places = rungs.pop(0)
            behind = sorted(set(racing) & set(halve), key=lambda number: (-sums[number], number))[places:]
            halved.update(behind)
            drop(behind)
    return Race(rows, tuple(dropped), frozenset(halved))
