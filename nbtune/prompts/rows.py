"""Which rows a search looks at: those that variants are scored on, and others to write variants from. Never a test row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from nbtune.errors import SpecError
from nbtune.prompts.racing import BLOCK

if TYPE_CHECKING:
    from nbtune.task import Example, Task

__all__ = ["SearchRows"]

_ENOUGH: Final = 64
"""Dev rows from which on no training row is needed beside them."""
_OTHERS: Final = 256
"""Most training rows that variants are written from."""


@dataclass(frozen=True)
class SearchRows:
    """`scored`: rows that variants are scored on, as they are asked, classes mixed; `others`: training rows to write them from."""

    scored: tuple[Example, ...]
    others: tuple[Example, ...]

    @classmethod
    def of(cls, task: Task, shots: Sequence[Example], *, most: int, seed: int) -> Self:
        """The dev rows, at most `most`; of fewer than 64 with up to half of the training rows beside them.

        Raises:
            SpecError: there are fewer than a look needs.
        """
        draw = random.Random(f"prompt-search:{seed}")
        taken = {item.index for item in shots}
        train = [item for item in task.asked if item.index not in taken]
        dev = list(task.dev)
        draw.shuffle(train)
        draw.shuffle(dev)
        borrowed = max(0, min(_ENOUGH - len(dev), len(train) // 2, most - len(dev)))
        scored = [*dev, *train[:borrowed]]
        draw.shuffle(scored)
        scored = scored[:most] if task.kind != "classification" else _mixed(scored[:most])
        if len(scored) < BLOCK:
            message = f"prompt-search scores on dev rows, and there are {len(dev)}, with {len(train)} training rows that are no examples"
            raise SpecError(message, hint=f"{BLOCK} rows are the least: give more data, or split: {{dev: 0.2}}")
        return cls(tuple(scored), tuple(train[borrowed:][:_OTHERS]))

    @property
    def told(self) -> str:
        """What they are: "40 dev and 24 training rows"."""
        dev = sum(item.split == "dev" for item in self.scored)
        train = len(self.scored) - dev
        return f"{dev} dev rows" if not train else f"{train} training rows" if not dev else f"{dev} dev and {train} training rows"


def _mixed(rows: Sequence[Example]) -> list[Example]:
    """The rows so that each part of them has about the labels that all have: variants that favour a label are judged alike on each."""
    count, seen = Counter(row.label for row in rows), Counter[str | None]()
    places = []
    for row in rows:
        places.append((seen[row.label] + 0.5) / count[row.label])
        seen[row.label] += 1
    return [rows[number] for number in sorted(range(len(rows)), key=places.__getitem__)]
