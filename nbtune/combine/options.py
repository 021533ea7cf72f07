"""How adapters become one, as it is said, and what follows of what was left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator

from nbtune.errors import Problem, SpecError
from nbtune.models.combining import WAYS, How, prunes
from nbtune.options import SEED_LIMIT, Spec, option

__all__ = ["CombineSpec"]

_DENSITY: Final = 0.5


def _numbers(value: Any) -> Any:
    listed = value if isinstance(value, list | tuple) else [value]
    if value is not None and not all(type(item) in {int, float} and math.isfinite(item) for item in listed):
        raise ValueError(f"numbers such as [0.7, 0.3], not {value!r:.60}")
    return None if value is None else tuple(map(float, listed))


class CombineSpec(Spec):
    """`%combine`: what each adapter counts, and how they become one."""

    what: ClassVar[str] = "option"

    weights: Annotated[tuple[float, ...] | None, BeforeValidator(_numbers)] = option(
        None, "what each adapter counts, as [0.7, 0.3]; left out: their mean, or 1 each for ties, which averages itself", group="options"
    )
    how: How | None = option(
        None,
        "left out: cat, the weighted sum of LoRAs exactly, or linear, that of ia3; the others give a smaller one, ties_svd and its like "
        "in minutes",
        group="options",
    )
    density: float | None = option(
        None, f"part of the numbers that ties, dare and magnitude_prune keep; left out: {_DENSITY}", gt=0, lt=1, group="options"
    )
    svd_rank: int | None = option(None, "rank of what svd gives; left out: the largest of theirs", ge=1, le=4096, group="options")
    seed: int = option(0, "seed of what dare leaves out", ge=0, le=SEED_LIMIT, group="options")

    def completed(self, kind: str, names: Sequence[str]) -> CombineSpec:
        """The same with nothing left out, for adapters of a kind (peft's name of their tuner) of the runs called `names`.

        Raises:
            SpecError: all that does not go together.
        """
        how, problems = self.how or WAYS[kind][0], []
        if how not in WAYS[kind]:
            problems.append(Problem(f"how cannot be {how!r}: of {kind} adapters there is the weighted sum", f"use how {WAYS[kind][0]}"))
        if self.weights is not None and len(self.weights) != len(names):
            problems.append(Problem(f"there are {len(self.weights)} weights for {len(names)} runs", f"one each: {', '.join(names)}"))
        if self.weights is not None and not any(self.weights):
            problems.append(Problem("all weights are 0, which is the base as it is", "give one of the runs some weight"))
        if self.density is not None and not prunes(how):
            problems.append(Problem(f"density is what ties, dare and magnitude_prune keep, and how is {how}", "leave density out"))
        if self.svd_rank is not None and not how.endswith("svd"):
            problems.append(Problem(f"svd_rank is the rank of what svd gives, and how is {how}", "leave svd_rank out, or use how svd"))
        if problems:
            raise SpecError.of(problems)
        weights = self.weights or (1.0 if "ties" in how else 1 / len(names),) * len(names)
        density = self.density or (_DENSITY if prunes(how) else None)
        return self.model_copy(update={"how": how, "weights": weights, "density": density})
