"""Few-shot: examples with their answers stand before the prompt (Brown et al. 2020, https://arxiv.org/abs/2005.14165).

Similar examples are chosen for each prompt (Liu et al. 2022, https://arxiv.org/abs/2101.06804), diverse ones once, so that they are as far
from each other as can be. How well examples work hangs on which they are and in what order (Lu et al. 2022,
https://arxiv.org/abs/2104.08786): `seeds` says how much.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast

from pydantic import BeforeValidator

from nbtune.approaches.base import Answers, Asked, Setting, further, silent
from nbtune.approaches.calibrating import CalibrateSpec, texts_for
from nbtune.approaches.neighbours import Pool
from nbtune.data.conversations import Conversation, with_shots
from nbtune.errors import SpecError
from nbtune.models.families import context_of
from nbtune.spec import SEED_LIMIT, option

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach, Asking, Progress
    from nbtune.spec import Spec
    from nbtune.task import Example, Task

__all__ = ["KIND", "FewShot", "FewShotSpec", "choose"]

BETWEEN: Final = "\n\n"
Shots = Callable[[str, int], Sequence["Example"]]
"""The examples for a prompt at a seed, the most wanted last: where there is no room for all, the first are left out."""
Order = Callable[[list["Example"], str, int], list["Example"]]
"""How those that there is room for stand before a prompt at a seed."""


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class FewShotSpec(CalibrateSpec):
    """How many examples, which, and in what order."""

    what: ClassVar[str] = "few-shot option"

    k: int = option(
        8, "examples before the prompt; as many of them as the model can read with it", ge=1, le=256, aliases=("num_shots", "shots")
    )
    select: Literal["random", "balanced", "similar", "diverse", "fixed"] = option(
        "random",
        "at random; evenly over the labels; the nearest to each prompt; as far from each other as can be; those of rows",
    )
    rows: Annotated[tuple[int, ...] | None, BeforeValidator(_listed)] = option(
        None, "select fixed: numbers of training rows, the last stands next to the prompt"
    )
    order: Literal["auto", "random", "nearest-last", "nearest-first"] = option(
        "auto", "of similar examples; auto: the nearest stands next to the prompt, others stand as they were drawn"
    )
    embed: str | None = option(None, "model that similar and diverse rows are found by; left out: minilm")
    seed: int = option(0, "seed of the choice and its order", ge=0, le=SEED_LIMIT)
    seeds: int = option(1, "ask with so many choices, from seed on: the score is their mean, and its spread is told", ge=1, le=20)


class FewShot:
    """See the module's text."""

    name: ClassVar[str] = "few-shot"
    summary: ClassVar[str] = "k answered training rows before the prompt"
    spec: ClassVar[type[Spec]] = FewShotSpec

    def make(self, task: Task, options: FewShotSpec, setting: Setting, label: str) -> Approach:
        """The base, asked with examples before every prompt.

        Raises:
            SpecError: there are fewer training rows than `k`, or options that do not go together.
            ModelError: a model cannot be loaded.
        """
        _refuse(task, options)
        shots_for = _chooser(task, options, setting)
        taken = {item.prompt for seed in range(options.seeds) for item in shots_for("", seed)} if options.select != "similar" else set()
        on = texts_for(task, options, without=taken, scoring=setting.scoring)
        base, order = setting.engine(task), _order(options)
        return _FewShot(label, task, base, lambda prompt: prompt, calibrate_on=on, shots_for=shots_for, order=order, seeds=options.seeds)


def _refuse(task: Task, options: FewShotSpec) -> None:
    if options.rows == ():
        raise SpecError("rows is empty: there are no examples to stand before a prompt", hint="name some, or use zero-shot")
    if (options.select == "fixed") != (options.rows is not None):
        raise SpecError(
            "select fixed and rows belong together, and one of them is missing", hint="write few-shot: {select: fixed, rows: [3, 17]}"
        )
    count = len(options.rows) if options.rows is not None else options.k
    if count > len(task.train):
        raise SpecError(f"k is {count}, and there are {len(task.train)} training rows", hint=f"use at most {len(task.train)}")
    stray = next((row for row in options.rows or () if not 0 <= row < len(task.train)), None)
    if stray is not None:
        raise SpecError(f"rows has {stray}, and training rows are numbered 0 to {len(task.train) - 1}", hint="count them in task.train")
    if options.select == "balanced" and task.kind != "classification":
        raise SpecError(f"select: balanced needs rows of one label each, and this task is of kind {task.kind}", hint="use select: random")
    if options.order.startswith("nearest") and options.select != "similar":
        raise SpecError(f"order {options.order} is of similar examples, and select is {options.select}", hint="use select: similar")
    fixed = options.select == "fixed" or (options.select == "similar" and options.order != "random")
    if options.seeds > 1 and fixed:
        raise SpecError(
            f"seeds is {options.seeds}, and with select {options.select} nothing is drawn", hint="leave seeds out, or order: random"
        )


def _chooser(task: Task, options: FewShotSpec, setting: Setting) -> Shots:
    """What chooses the examples of a prompt."""
    if options.select == "similar":
        pool = Pool.of(task, options.embed, device=setting.device)
        return _Similar(pool, options.k)
    if options.select == "diverse":
        pool = Pool.of(task, options.embed, device=setting.device)
        drawn = [_diverse(pool, options.k, options.seed + number) for number in range(options.seeds)]
    else:
        drawn = [choose(task, options.model_copy(update={"seed": options.seed + number})) for number in range(options.seeds)]
    return lambda _prompt, number: drawn[number]


@dataclass(frozen=True)
class _Similar:
    """The training rows nearest to a prompt, the nearest last."""

    pool: Pool
    k: int

    def __call__(self, prompt: str, number: int) -> list[Example]:
        (near,) = self.pool.nearest([prompt], self.k)
        return near[::-1]


def _order(options: FewShotSpec) -> Order:
    """As they come, where nothing else is wanted."""

    def shuffled(shots: list[Example], prompt: str, number: int) -> list[Example]:
        random.Random(f"order:{options.seed + number}:{prompt}").shuffle(shots)
        return shots

    if options.select == "similar" and options.order == "random":
        return shuffled
    return (lambda shots, _prompt, _number: shots[::-1]) if options.order == "nearest-first" else lambda shots, _prompt, _number: shots


def _diverse(pool: Pool, k: int, seed: int) -> list[Example]:
    """Rows of which each is the one farthest from those before (k-center, Gonzalez 1985), in any order; the first at random."""
    import numpy as np

    draw = random.Random(f"few-shot:{seed}")
    chosen = [draw.randrange(len(pool.items))]
    near = pool.vectors @ pool.vectors[chosen[0]]
    while len(chosen) < k:
        near[chosen] = np.inf
        chosen.append(int(near.argmin()))
        near = np.maximum(near, pool.vectors @ pool.vectors[chosen[-1]])
    draw.shuffle(chosen)
    return [pool.items[place] for place in chosen]


def choose(task: Task, options: FewShotSpec) -> list[Example]:
    """The examples, in the order they stand in; from the training rows alone."""
    if options.rows is not None:
        return [task.train[row] for row in options.rows]
    draw = random.Random(f"few-shot:{options.seed}")
    pool = sorted(task.train, key=lambda item: item.key)
    draw.shuffle(pool)
    if options.select == "random":
        return pool[: options.k]
    by_label = {label: [item for item in pool if item.label == label] for label in task.labels}
    rounds = [item for place in range(options.k) for items in by_label.values() for item in items[place : place + 1]]
    chosen = rounds[: options.k]
    draw.shuffle(chosen)
    return chosen


@dataclass(frozen=True, repr=False)
class _FewShot(Asked):
    """Asks with the examples that go in, once for each seed."""

    shots_for: Shots = field(kw_only=True)
    order: Order = field(kw_only=True)
    seeds: int = field(default=1, kw_only=True)

    def answer(self, prompts: Sequence[str], asking: Asking, *, progress: Progress = silent) -> Answers:
        """As `Asked.answer`; of more seeds than one the outputs are the first one's, and all stand in `repeats`."""
        found: list[Answers] = []
        counts: list[int] = []
        most, choosing = 0, 0.0
        for number in range(self.seeds):
            choosing += self.shots_for.pool.saved([*prompts, *self.calibrate_on]) if isinstance(self.shots_for, _Similar) else 0.0
            began = time.perf_counter()
            texts, used, wanted = self._with_shots([*prompts, *self.calibrate_on], number, asking)
            choosing += time.perf_counter() - began
            counts += used[: len(prompts)]
            most = max(most, wanted)
            found.append(self._asked_as(texts).answer(prompts, asking, progress=further(progress, number, self.seeds, len(prompts))))
        notes = [note for each in found for note in each.notes]
        if counts and min(counts) < most:
            fit = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
            notes.append(
                f"{self.label}: of {most} examples {fit} fit before a prompt into the {context_of(self.by.base.config):,} tokens it reads"
            )
        repeats = tuple(each.outputs for each in found) if self.seeds > 1 else ()
        seconds = (sum(each.seconds for each in found) + choosing) / self.seeds
        return replace(found[0], seconds=seconds, notes=tuple(dict.fromkeys(notes)), repeats=repeats)

    def texts(self, prompts: Sequence[str], asking: Asking) -> list[str]:
        """The prompts behind the examples of the first seed."""
        texts, _, _ = self._with_shots(prompts, 0, asking)
        return [texts[str(prompt)] for prompt in prompts]

    def shown(self, prompts: Sequence[str]) -> frozenset[str]:
        """The prompts of the examples, at any seed."""
        return frozenset(shot.prompt for number in range(self.seeds) for prompt in prompts for shot in self.shots_for(prompt, number))

    def _asked_as(self, texts: Mapping[str, str]) -> Asked:
        """Asks each prompt in these words."""
        return Asked(self.label, self.task, self.by, lambda prompt: texts[str(prompt)], calibrate_on=self.calibrate_on)

    def _with_shots(self, prompts: Sequence[str], number: int, asking: Asking) -> tuple[dict[str, str], list[int], int]:
        """({prompt: itself behind as many examples as fit}, how many these are, how many were wanted)."""
        if isinstance(self.shots_for, _Similar):
            self.shots_for.pool.nearest(prompts, 1)  # all embedded together
        room, wanted = self.room(asking), 0
        texts, used = [], []
        for prompt in prompts:
            shots = list(self.shots_for(prompt, number))
            wanted = max(wanted, len(shots))
            texts.append(_before(self.order(shots, prompt, number), prompt))
            used.append(len(shots))
        if room is None or max((len(text.encode()) for text in texts), default=0) <= room // 2:
            # A token stands for a byte or more; half of the room is for what a chat template or a soft prompt puts before a text.
            return dict(zip(map(str, prompts), texts, strict=True)), used, wanted
        lengths = self.by.prompt_tokens(texts)
        for place, prompt in enumerate(prompts):
            while lengths[place] > room and used[place]:
                shots = list(self.shots_for(prompt, number))
                mean = lengths[place] / (used[place] + 1)
                used[place] = max(0, used[place] - max(1, int((lengths[place] - room) / mean)))
                texts[place] = _before(self.order(shots[len(shots) - used[place] :], prompt, number), prompt)
                (lengths[place],) = self.by.prompt_tokens([texts[place]])
        return dict(zip(map(str, prompts), texts, strict=True)), used, wanted


def _before(shots: Sequence[Example], prompt: str) -> str:
    """The prompt behind the examples."""
    if isinstance(prompt, Conversation):
        return with_shots([(cast("Conversation", shot.prompt), shot.completion) for shot in shots], prompt)
    return "".join(shot.prompt + shot.completion + BETWEEN for shot in shots) + prompt


KIND: Final[Any] = FewShot()
