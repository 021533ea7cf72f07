"""The approaches that there are, and `nbtune.prompt`, which makes one to use alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import SpecError
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.registry import Registry

if TYPE_CHECKING:
    from nbtune.approaches.base import Approach, Kind, Setting
    from nbtune.task import Task

__all__ = ["approach_of", "get", "label_of", "names", "prompt", "short_option", "wanted"]

_FILES: Final = {
    "zero-shot": "zero_shot",
    "few-shot": "few_shot",
    "prompt-search": "prompt_search",
    "run": "tuned",
    "ensemble": "ensemble",
    "retrieval": "retrieval",
    "function": "function",
    "floor": "floor",
}
_APPROACHES: Final = Registry["Kind"]("approach", "nbtune.approaches", _FILES, "KIND")
_SHORT: Final = {
    "run": "run",
    "function": "function",
    "floor": "by",
    "ensemble": "of",
    "retrieval": "index",
    "prompt-search": "templates",
}
"""The option that may stand alone in the place of all: `run: NAME`."""


def names() -> tuple[str, ...]:
    """Every approach's name, the built-in ones first."""
    return _APPROACHES.names


def get(name: str) -> Kind:
    """The kind of approach called `name`; `_` may stand for `-`.

    Raises:
        SpecError: there is none of that name.
    """
    return _APPROACHES.get(name)


def short_option(name: str) -> str | None:
    """The option of an approach that may stand alone in the place of all: `run: NAME`; None where there is none."""
    return _SHORT.get(name)


def wanted(entry: Any) -> tuple[str, Any]:
    """(kind, built options) of an entry as it is said: "zero-shot", {"few-shot": {"k": 8}}, {"run": NAME}, a Run, or a function.

    Raises:
        SpecError: unknown approach or option, or another shape.
    """
    if isinstance(entry, str):
        return _named_run(entry) or (get(entry).name, get(entry).spec.build({}))
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, options),) = entry.items()
        kind = get(str(name))
        if kind.name in _SHORT and options is not None and not isinstance(options, Mapping):
            options = {_SHORT[kind.name]: options}
        if options is not None and not isinstance(options, Mapping):
            raise SpecError(f"{name}: options are a mapping, not {options!r:.60}", hint=f"write {name}: {{option: value}}")
        return kind.name, kind.spec.build(dict(options or {}))
    if hasattr(entry, "engine") and hasattr(entry, "summary"):
        return "run", get("run").spec.build({"run": entry})
    if callable(entry):
        return "function", get("function").spec.build({"function": entry})
    raise SpecError(
        f"an approach is a name, {{name: options}}, a run or a function, not {entry!r:.80}", hint=f"known: {', '.join(names())}"
    )


def approach_of(entry: Any, task: Task, setting: Setting, label: str | None = None) -> Approach:
    """The approach that an entry asks for, its model loaded; `label` names it in place of what it is called by itself.

    Raises:
        SpecError, RunError, ModelError: it cannot be made, or the task has nothing to answer.
    """
    name, options = wanted(entry)
    if task.kind == "tagging" and name not in ("run", "function", "ensemble"):
        message = f"task {task.name!r} is of kind tagging, and {name} writes text in place of tags"
        raise SpecError(message, hint="compare runs: - run: NAME")
    if task.kind == "text":
        message = f"task {task.name!r} is of kind text: there is nothing to answer"
        raise SpecError(message, hint="a run's summary and history tell its perplexity; compare on a task with a completion")
    return get(name).make(task, options, setting, label or label_of(name, options))


def label_of(name: str, options: Any) -> str:
    """How it is named in a grid: "few-shot: k=4", with the options that differ from their defaults; "run: NAME"."""
    kind: Any = get(name)
    if hasattr(kind, "called"):
        return str(kind.called(options))
    said = options.model_dump()
    changed = [f"{item.name}={said[item.name]}" for item in options.options() if said[item.name] != item.default]
    return f"{name}: {', '.join(changed)}" if changed else name


def prompt(
    approach: str,
    *,
    task: Task,
    model: Any = DEFAULT_DECODER,
    dtype: str | None = None,
    quantization: str | None = None,
    device: str | None = None,
    report: Callable[[str], None] | None = None,
    **options: Any,
) -> Approach:
    """A way to put the frozen model to the task, with `.predict(rows)`.

    Args:
        approach: zero-shot, few-shot, or any other by its name.
        task: what to answer; few-shot examples come from its training rows.
        model: as in `finetune`.
        dtype: as in `finetune`.
        quantization: as in `finetune`.
        device: as in `finetune`.
        report: told in a few words what goes on, where it takes its time to be made.
        **options: the approach's, such as k and select.

    Raises:
        SpecError: unknown approach, option or value.
        ModelError: the model cannot be loaded.
    """
    from nbtune.approaches.base import Setting, unheard

    return approach_of({approach: options}, task, Setting(model, dtype, quantization, device, report=report or unheard))


def _named_run(entry: str) -> tuple[str, Any] | None:
    head, colon, name = entry.partition(":")
    return ("run", get("run").spec.build({"run": name.strip()})) if colon and head.strip() == "run" else None
