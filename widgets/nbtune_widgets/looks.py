"""The looks at dev while training goes on: the best of them, and the word for a gap that opens between train and dev."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from nbtune.events import Evaluation

__all__ = ["IN_A_ROW", "MARGIN", "best_look", "gap", "gap_text", "overfitting_since"]

IN_A_ROW: Final = 2
MARGIN: Final = 0.01


def best_look(looks: Sequence[Evaluation]) -> Evaluation | None:
    """The last look that the run called its best; None where none was (older folders do not tell)."""
    return next((look for look in reversed(looks) if look.best), None)


def gap(looks: Sequence[Evaluation]) -> float | None:
    """Dev loss less train loss (nats a token) at the last look, the train loss being that since the look before."""
    if not looks:
        return None
    value = looks[-1].loss - looks[-1].train_loss
    return value if math.isfinite(value) else None


def overfitting_since(looks: Sequence[Evaluation]) -> int | None:
    """The step of the lowest dev loss, if the model has been overfitting since; else None.

    The rule: the last two looks both have a dev loss more than 1 % above the lowest before them, and the train loss at the last look is
    below that at the lowest. One look alone may be chance, and a dev loss that rises with the train loss is a learning rate too high.
    """
    if len(looks) <= IN_A_ROW:
        return None
    before, late = looks[:-IN_A_ROW], looks[-IN_A_ROW:]
    lowest = min(before, key=lambda look: look.loss if math.isfinite(look.loss) else math.inf)
    above = all(look.loss > lowest.loss * (1 + MARGIN) for look in late)
    return lowest.step if above and late[-1].train_loss < lowest.train_loss else None


def gap_text(looks: Sequence[Evaluation]) -> str:
    """The plain word about it, "" while there is nothing to say."""
    step = overfitting_since(looks)
    return "" if step is None else f"overfitting since step {step:,}: dev loss rises while train loss falls"
