"""`%%prompt`: asks the model as it is, and shows some answers on dev rows beside what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nbtune import approaches
from nbtune.errors import Problem, did_you_mean
from nbtune.spec import AskingSpec, option
from nbtune_magics.answers import Answered, answered_html, answered_text
from nbtune_magics.columns import checked
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.output import bind
from nbtune_magics.said import said_of_task
from nbtune_magics.suggestions import approach_spec, describe_approach
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nbtune import Task
    from nbtune.approaches.base import Approach
    from nbtune_magics.said import Said
    from nbtune_magics.steps import Steps

__all__ = ["PROMPT", "PromptSpec"]


class PromptSpec(AskingSpec):
    """What all approaches of a `%%prompt` cell share."""

    what: ClassVar[str] = "approach or option"

    task: str = option("", "name of the task")
    model: str | None = option(None, "catalogue name, folder, hub id, or a bound model")
    quantization: Literal["nf4", "fp4", "int8"] | None = option(None, "hold the base in 4 or 8 bits")
    dtype: Literal["float32", "bfloat16", "float16"] | None = option(None, "number format of the base", aliases=("torch_dtype",))
    device: str | None = option(None, "cpu, cuda, cuda:1, mps; left out: the best there is")
    num_rows: int = option(20, "dev rows asked", ge=1)


@dataclass(frozen=True)
class _Asked:
    """The approaches of one cell and what they answered."""

    approaches: tuple[Approach, ...]
    answers: tuple[Answered, ...]


def _run(call: Call) -> Steps[Any]:
    entries, options, unknown = _parts(call)
    found, problems = checked(entries, call.shell.user_ns)
    if not entries and not unknown:
        problems.append(Problem("no approach is named", f"write one a line, such as few-shot: {{k: 8}}; known: {', '.join(_names())}"))
    call = call.with_values(options)
    chosen, task = said_of_task(call, PromptSpec, problems=[*problems, *unknown])
    asked, notice = yield from with_progress(_work(chosen, task, found), "asking")
    from nbtune.approaches.prompt_search import Searched
    from nbtune_widgets.search import search_html, search_text

    searched = [approach for approach in asked.approaches if isinstance(approach, Searched)]
    shown, told = answered_html(asked.answers), answered_text(asked.answers)
    notice.replace(f"{shown}{search_html(searched)}" if searched else shown, f"{told}\n{search_text(searched)}" if searched else told)
    result = asked.approaches[0] if len(asked.approaches) == 1 else list(asked.approaches)
    if chosen.name is not None:
        bind(call.shell, chosen.name, result, "approach")
    call.shown.mark(result)
    return result


def _parts(call: Call) -> tuple[list[tuple[Any, int | None]], dict[str, Any], list[Problem]]:
    """(approaches with their lines, the options of all of them, keys that are neither)."""
    entries: list[tuple[Any, int | None]] = [(word, 1) for word in call.words]
    entries += [(item, call.lines.get(str(number))) for number, item in enumerate(call.items or [])]
    options: dict[str, Any] = {}
    unknown: list[Problem] = []
    table = PromptSpec.names()
    for key, value in call.values.items():
        if key.replace("_", "-") in _names():
            entries.append(({key: value}, call.lines.get(key)))
        elif key.replace("-", "_") in table:
            options[key] = value
        else:
            unknown.append(Problem(f"unknown approach or option {key!r}", did_you_mean(key, [*_names(), *table]), call.lines.get(key)))
    return entries, options, unknown


def _names() -> tuple[str, ...]:
    return approaches.names()


def _work(chosen: Said, task: Task, entries: list[Any]) -> Callable[[Callable[[str], None]], _Asked]:
    def work(report: Callable[[str], None]) -> _Asked:
        report("importing torch")
        warmed()
        from nbtune.approaches.base import Setting
        from nbtune.models import DEFAULT_DECODER

        spec = chosen.spec
        model = chosen.given.get("model") or DEFAULT_DECODER
        setting = Setting(model, spec.dtype, spec.quantization, spec.device, scoring=spec.scoring, decoding=spec.decoding, report=report)
        made = []
        for entry in entries:
            report(f"preparing {entry if isinstance(entry, str) else next(iter(entry))}")
            made.append(approaches.approach_of(entry, task, setting))
        return _Asked(tuple(made), _ask(made, spec, report))

    return work


def _ask(made: Sequence[Approach], spec: PromptSpec, report: Callable[[str], None]) -> tuple[Answered, ...]:
    from nbtune.approaches.base import Asking
    from nbtune.inference.progress import counted
    from nbtune.metrics import score_interval

    found = []
    for approach in made:
        task = approach.task
        rows = task.dev[: spec.num_rows]
        expected = [row.expected for row in rows]
        asking = Asking.of(task, approach.engines, spec.scoring, spec.decoding)
        progress = counted(report, approach.label, "dev rows")
        outputs = approach.answer([row.question for row in rows], asking, progress=progress).outputs
        scored = bool(rows)
        found.append(
            Answered(
                label=approach.label,
                metric=task.metric.name,
                score=task.metric.score(outputs, expected) if scored else None,
                interval=score_interval(task.metric, outputs, expected) if scored else None,
                how=str(asking),
                prompts=tuple(row.prompt for row in rows),
                expected=tuple(expected),
                outputs=tuple(outputs),
                right=tuple(bool(value) for value in task.metric.rows(outputs, expected)) if task.metric.binary else None,
            )
        )
    return tuple(found)


def _spec(_words: tuple[str, ...]) -> type[PromptSpec]:
    return PromptSpec


def _prompting() -> tuple[str, ...]:
    return tuple(name for name in _names() if name != "run")


PROMPT = Magic(
    name="prompt",
    usage="%%prompt --task NAME [--model MODEL] [--as NAME] [--key value ...]",
    about="Asks the model as it is, by each approach of the body, and shows some answers to dev rows. The test rows are left to %%compare.",
    body="one `approach: {option: value}` a line, such as `few-shot: {k: 8}`",
    run=_run,
    spec=_spec,
    own=(AS,),
    names=_prompting,
    choice="approaches",
    describe=describe_approach,
    parts=_names,
    part_spec=approach_spec,
    waits=True,
)
