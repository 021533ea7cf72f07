"""Calibration as an option: training texts whose answers are not looked at show what a model prefers whatever it is asked."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from nbtune.errors import SpecError
from nbtune.spec import Spec, option

if TYPE_CHECKING:
    from nbtune.task import Task

__all__ = ["CalibrateSpec", "texts_for"]

_TEXTS: Final = 64


class CalibrateSpec(Spec):
    """What zero-shot and few-shot have in common."""

    calibrate: bool = option(
        False,
        "labels scored: take off what the model prefers over training texts, whose answers are not looked at (https://arxiv.org/abs/2309.17249)",
    )


def texts_for(task: Task, options: CalibrateSpec, without: Collection[str] = (), *, scoring: str, most: int = _TEXTS) -> tuple[str, ...]:
    """Prompts of at most so many training rows to calibrate on, none of those `without`; none where it is not wanted.

    Raises:
        SpecError: the task has no labels, or they are not to be scored.
    """
    if not options.calibrate:
        return ()
    if task.kind != "classification":
        message = f"calibrate puts right how labels are scored, and task {task.name!r} is of kind {task.kind}"
        raise SpecError(message, hint="leave calibrate out")
    if scoring == "generate":
        message = "calibrate puts right how labels are scored, and here they are generated"
        raise SpecError(message, hint="leave calibrate out, or set scoring: sum, mean or byte")
    pool = sorted({item.prompt: item.key for item in task.train if item.prompt not in without}.items(), key=lambda entry: entry[1])
    if not pool:
        raise SpecError("calibrate needs training texts that are no examples, and there are none", hint="use a smaller k, or leave it out")
    return tuple(prompt for prompt, _ in random.Random("calibrate").sample(pool, min(most, len(pool))))
