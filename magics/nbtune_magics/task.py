"""`%%task NAME`: says what to learn, shows it, and keeps it under its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbtune.errors import NbtuneError, Problem
from nbtune.spec import TaskSpec
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.notice import with_notice
from nbtune_magics.output import bind, check_name, show
from nbtune_magics.project import state
from nbtune_magics.said import no_more_words, said

if TYPE_CHECKING:
    from nbtune import Task
    from nbtune_magics.steps import Steps

__all__ = ["TASK", "shown", "with_name"]


def _run(call: Call) -> Steps[Any]:
    call = no_more_words(call, 1, "a task has one name; flags are written --key value")
    from nbtune import Task

    chosen = said(with_name(call), TaskSpec)
    task = yield from with_notice(lambda: Task.from_spec(chosen.spec), f"{chosen.spec.name}: reading the data")
    state.add(task)
    shown(task)
    bind(call.shell, task.name, task, "task")
    call.shown.mark(task)
    return task


def with_name(call: Call) -> Call:
    """The call with the first word as `name`; a task without a name is a problem of the line."""
    name = call.words[0] if call.words else call.own.get("as") or call.values.get("name")
    problems = list(call.problems)
    if name is None:
        problems.append(Problem("the task has no name", "write it behind the magic: %%task NAME", 1))
    else:
        try:
            check_name(name)
        except NbtuneError as error:
            problems.append(Problem(error.message, error.hint, 1))
    values = {**call.values, **({"name": name} if isinstance(name, str) else {})}
    return replace(call, values=values, own={}, problems=tuple(problems))


def shown(task: Task) -> None:
    """Shows what a task is."""
    from nbtune_widgets.task_card import task_html, task_text

    preview, tokens = task.preview(), _tokens(task)
    show(task, html=task_html(preview, tokens), text=task_text(preview, tokens))


def _tokens(task: Task) -> Any:
    """Lengths and trained tokens, where a tokenizer is in memory already; a card never loads one."""
    import sys

    if "nbtune.models.shared" not in sys.modules:
        return None
    from nbtune.models import DEFAULT_DECODER, loaded_tokenizer

    tokenizer = loaded_tokenizer(DEFAULT_DECODER)
    if tokenizer is None:
        return None
    from nbtune.data.encoding import token_view

    return token_view(task, tokenizer)


def _spec(_words: tuple[str, ...]) -> type[TaskSpec]:
    return TaskSpec


TASK = Magic(
    name="task",
    usage="%%task NAME --data FILE_OR_VARIABLE [--metric METRIC] [--key value ...]",
    about="Says what to learn: the data, the templates of prompt and completion, the split and the metric. "
    "Shows what came of it, loads no model.",
    body="prompt and completion with {{ column }}, and any of the options, one `key: value` a line",
    run=_run,
    spec=_spec,
    own=(AS,),
    waits=True,
)
