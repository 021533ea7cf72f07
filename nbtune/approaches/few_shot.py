"""Few-shot: examples with their answers stand before the prompt (Brown et al. 2020, https://arxiv.org/abs/2005.14165)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Final, Literal, cast

from nbtune.approaches.base import Approach, Setting
from nbtune.data.conversations import Conversation, with_shots
from nbtune.errors import SpecError
from nbtune.spec import SEED_LIMIT, Spec, option

if TYPE_CHECKING:
    from nbtune.task import Example, Task

__all__ = ["KIND", "FewShot", "FewShotSpec", "choose"]

BETWEEN: Final = "\n\n"


class FewShotSpec(Spec):
    """How many examples, and which."""

    what: ClassVar[str] = "few-shot option"

    k: int = option(8, "examples before the prompt", ge=1, le=256, aliases=("num_shots", "shots"))
    select: Literal["random", "balanced"] = option("random", "at random, or evenly over the labels, from the training rows")
    seed: int = option(0, "seed of the choice and its order", ge=0, le=SEED_LIMIT)


class FewShot:
    """See the module's text."""

    name: ClassVar[str] = "few-shot"
    summary: ClassVar[str] = "k answered training rows before the prompt"
    spec: ClassVar[type[Spec]] = FewShotSpec

    def make(self, task: Task, options: FewShotSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with the same examples before every prompt.

        Raises:
            SpecError: there are fewer training rows than `k`, or `balanced` where there are no labels.
        """
        shots = choose(task, options)
        if isinstance(shots[0].prompt, Conversation):
            pairs = [(cast("Conversation", shot.prompt), shot.completion) for shot in shots]
            return Approach(label, task, setting.engine(task), lambda prompt: with_shots(pairs, cast("Conversation", prompt)))
        before = "".join(shot.prompt + shot.completion + BETWEEN for shot in shots)
        return Approach(label, task, setting.engine(task), lambda prompt: before + prompt)


def choose(task: Task, options: FewShotSpec) -> list[Example]:
    """The examples, in the order they stand in; from the training rows alone.

    Raises:
        SpecError: as `FewShot.make`.
    """
    if options.k > len(task.train):
        raise SpecError(f"k is {options.k}, and there are {len(task.train)} training rows", hint=f"use at most {len(task.train)}")
    draw = random.Random(f"few-shot:{options.seed}")
    pool = sorted(task.train, key=lambda item: item.key)
    draw.shuffle(pool)
    if options.select == "random":
        return pool[: options.k]
    if task.kind != "classification":
        raise SpecError(f"select: balanced needs rows of one label each, and this task is of kind {task.kind}", hint="use select: random")
    by_label = {label: [item for item in pool if item.label == label] for label in task.labels}
    rounds = [item for place in range(options.k) for items in by_label.values() for item in items[place : place + 1]]
    chosen = rounds[: options.k]
    draw.shuffle(chosen)
    return chosen


KIND: Final = FewShot()
