"""What a grid verifies of itself: same rows, same questions, adapters really on, and the base really the base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from nbtune.approaches.base import Asked
from nbtune.errors import ModelError
from nbtune.inference import Engine
from nbtune.inference.cache import AnswerCache
from nbtune.inference.classical import FeaturesEngine
from nbtune.inference.progress import counted
from nbtune.models.fingerprint import sum_of

if TYPE_CHECKING:
    from nbtune.approaches.base import Answers, Approach, Asking, Setting
    from nbtune.inference.progress import Progress
    from nbtune.models.base import Base
    from nbtune.task import Task

__all__ = ["check_columns"]

Drift = Callable[["Base"], float]
"""How far a base's logits are from what they were when it was loaded."""

_NEAR: Final = 0.25
"""Nats by which a label's score may differ between a batch and a row alone, in bfloat16."""
_NEAR_FLOAT32: Final = 0.005


def check_columns(
    task: Task, approaches: Sequence[Approach], answered: Sequence[Answers], *, asking: Asking, prompts: Sequence[str], setting: Setting
) -> tuple[list[str], list[str]]:
    """(checks that held, warnings) of a grid's columns."""
    template = _digest([str(task.spec.prompt), str(task.spec.completion), str(task.spec.text_pair), str(task.system)])
    checks = [
        f"same rows: {len(prompts)} prompts in every column (sha256 {_digest(prompts)}), by one template (sha256 {template})",
        f"same decoding: {asking}",
    ]
    warnings = _leaks(task, approaches, prompts, checks)
    drift = cache(lambda base: base.drift())  # a forward, and the same for all columns on a base
    for approach, answers in zip(approaches, answered, strict=True):
        warnings += approach.warnings
        if not prompts:
            continue
        if approach.engines:
            progress = counted(setting.report, f"checking {approach.label}")
            _check_order(approach, answers, asking, prompts, progress, checks=checks, warnings=warnings)
        asked = [part for part in approach.parts if isinstance(part, Asked)]
        if not all(part.own_template or _asks(part, prompts, asking) for part in asked):
            warnings.append(f"{approach.label}: it does not ask with the template of the others")
        for part in asked:
            if part.run_id is not None:
                _check_tuned(part, _short(prompts), setting, drift, checks=checks, warnings=warnings)
    _check_bases(approaches, drift, warnings)
    return list(dict.fromkeys(checks)), list(dict.fromkeys(warnings))


def _places(prompts: Sequence[str]) -> list[int]:
    """The first row, one in the middle, the last."""
    return sorted({0, len(prompts) // 2, len(prompts) - 1})


def _short(prompts: Sequence[str]) -> str:
    """The shortest in which something stands that every model reads."""
    return min((prompt for prompt in prompts if any(map(str.isalnum, prompt))), key=len, default=prompts[0])


def _asks(part: Asked, prompts: Sequence[str], asking: Asking) -> bool:
    """Whether each prompt stands in what the model reads in its place."""
    some = [prompts[place] for place in _places(prompts)]
    return all(str(prompt) in str(text) for prompt, text in zip(some, part.texts(some, asking), strict=True))


def _check_bases(approaches: Sequence[Approach], drift: Drift, warnings: list[str]) -> None:
    """That what columns ask without an adapter is the base as it was loaded; and whether all have one base."""
    seen: set[int] = set()
    for approach in approaches:
        for engine in approach.engines:
            if engine.adapter is not None or id(engine.base) in seen:
                continue
            seen.add(id(engine.base))
            if (away := drift(engine.base)) > 0:
                warnings.append(f"{approach.label}: logits are {away:.3g} away from the base as it was loaded")
    names = {engine.base.name for approach in approaches for engine in approach.engines}
    if len(names) > 1:
        warnings.append(f"the columns do not share one base: {', '.join(sorted(names))}")


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _leaks(task: Task, approaches: Sequence[Approach], prompts: Sequence[str], checks: list[str]) -> list[str]:
    """What of the rows asked stands among those that columns learn from."""
    asked, found = set(prompts), []
    for approach in approaches:
        if approach.task.fingerprint != task.fingerprint:
            found.append(f"{approach.label}: it answers task {approach.task.name!r} with other rows or another template than this grid's")
        known = sum(item.prompt in asked for item in (*approach.task.train, *approach.task.dev))
        if known:
            found.append(f"{approach.label}: {known} of the rows that it may learn from are asked here: its score says nothing of new rows")
        shown = len(approach.shown(prompts) & asked)
        if shown:
            found.append(f"{approach.label}: {shown} of the rows asked stand among its examples: its score says nothing of new rows")
    if not found and prompts:
        checks.append(f"none of the {len(prompts)} rows asked is among the {len(task.train) + len(task.dev)} train and dev rows")
    return found


def _check_order(
    approach: Approach,
    answers: Answers,
    asking: Asking,
    prompts: Sequence[str],
    progress: Progress,
    *,
    checks: list[str],
    warnings: list[str],
) -> None:
    """Some rows asked again, each alone: answers that have got into another order are another row's, or what was kept another model's.

    The model itself is asked one; where that has the same scores, which another model would hardly give, what it said of the others alone
    may be taken from what is kept.
    """
    exact = all(str(engine.base.dtype) == "torch.float32" and engine.base.quantization is None for engine in approach.engines)
    near = _NEAR_FLOAT32 if exact else _NEAR
    shortest, *others = places = sorted(_places(prompts), key=lambda place: len(prompts[place]))  # the first is a forward each time
    alone = approach.answer([prompts[shortest]], replace(asking, alone=True, kept=False), progress=progress)
    differ = [] if _alike(answers, shortest, alone, 0, near) else [shortest]
    if others:
        kept = not differ and alone.label_scores is not None
        alone = approach.answer([prompts[place] for place in others], replace(asking, alone=True, kept=kept), progress=progress)
        differ += [place for number, place in enumerate(others) if not _alike(answers, place, alone, number, near)]
    if len(differ) > len(places) // 2:
        rows = ", ".join(map(str, sorted(differ)))
        kept = any(type(engine) is Engine for engine in approach.engines)
        stale = f", or those of a model that has changed since; delete {AnswerCache().path} to ask it anew" if kept else ""
        warnings.append(
            f"{approach.label}: rows {rows} answered otherwise when they were asked alone: its outputs may be other rows'{stale}"
        )
    else:
        checks.append(f"{approach.label}: {len(places) - len(differ)} of {len(places)} rows asked alone answered the same")


def _alike(answers: Answers, place: int, alone: Answers, number: int, near: float) -> bool:
    """Whether a row's labels have the same scores in both, at these places, but for so many nats; or its answers are the same."""
    if answers.label_scores is None or alone.label_scores is None:
        return answers.outputs[place] == alone.outputs[number]
    gaps = (abs(a - b) for a, b in zip(answers.label_scores[place], alone.label_scores[number], strict=True))
    return max(gaps) < near


def _untouched(approach: Asked, setting: Setting) -> Engine:
    """The base of a run that trained parts of its own copy; where that has a head over classes, a copy with the same."""
    from nbtune.models.loading import source_of
    from nbtune.models.shared import shared_base

    tuned, source = approach.by.base, source_of(setting.model)
    source = source if source.name == tuned.name else source_of(tuned.name)
    source = source.over(tuned.labels) if tuned.labels else source
    held = {"dtype": str(tuned.dtype).removeprefix("torch."), "quantization": tuned.quantization, "device": str(tuned.device)}
    return replace(approach.by.off(), base=shared_base(source, **held))


def _check_tuned(approach: Asked, prompt: str, setting: Setting, drift: Drift, *, checks: list[str], warnings: list[str]) -> None:
    """Which numbers were learnt, logits after a prompt with them on and off, and off against the base before anything was attached."""
    engine = approach.by
    if isinstance(engine, FeaturesEngine):
        checks.append(f"{approach.label}: no weight of {engine.base.name} was trained, a classifier reads its states")
        return
    name = engine.adapter or ""
    learnt = engine.base.state(name)
    checks.append(f"{approach.label}: what it learnt are {len(learnt.tensors)} tensors (sha256 {sum_of(learnt)[:12]})")
    adapter = engine.base.has_adapter(name)
    what = "adapter" if adapter else "trained parts"
    try:
        off = engine.off() if adapter else _untouched(approach, setting)
    except ModelError as error:  # its base was an object of a notebook
        warnings.append(f"{approach.label}: its {what} cannot be told from its base, which is not to be had: {error.message}")
        return
    difference = float((engine.logits(prompt) - off.logits(prompt)).abs().max())
    if difference > 0:
        checks.append(f"{approach.label}: {what} on, logits differ from the base's by up to {difference:.3g}")
    else:
        warnings.append(f"{approach.label}: its {what} changed nothing: logits are the base's")
    away = drift(off.base)
    if away == 0:
        checks.append(f"{approach.label}: {what} off, logits equal those of the base as it was loaded")
    else:
        warnings.append(f"{approach.label}: with its {what} off, logits are {away:.3g} away from the base as it was loaded")
