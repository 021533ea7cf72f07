"""`%doctor TASK`: what is wrong with the data, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbtune.doctor import DoctorSpec
from nbtune.errors import Problem
from nbtune_magics.magic import Call, Magic
from nbtune_magics.notice import with_progress
from nbtune_magics.project import state
from nbtune_magics.said import no_more_words, said_of_task
from nbtune_magics.warmup import warmed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbtune.data.doctor import Diagnosis
    from nbtune_magics.notice import Report
    from nbtune_magics.steps import Steps

__all__ = ["DOCTOR"]


def _run(call: Call) -> Steps[Any]:
    call = _named(no_more_words(call, 1, "one task at a time; flags are written --key value"))
    chosen, task = said_of_task(call, DoctorSpec)

    def look(report: Report) -> Diagnosis:
        import nbtune

        report("importing torch")
        warmed()
        report(f"{task.name}: looking at its rows and their tokens")
        return nbtune.doctor(task, **chosen.given)

    diagnosis, notice = yield from with_progress(look, f"{task.name}: looking")
    from nbtune_widgets.diagnosis import diagnosis_html, diagnosis_text

    notice.replace(diagnosis_html(diagnosis), diagnosis_text(diagnosis))
    call.shown.mark(diagnosis)
    return diagnosis


def _named(call: Call) -> Call:
    """The call with its first word as the task."""
    if not call.words:
        return call
    name, other = call.words[0], call.values.get("task")
    named = replace(call, values={**call.values, "task": name}, lines={**call.lines, "task": 1})
    if other in (None, name):
        return named
    clash = Problem(f"the line names two tasks, {name!r} and {other!r}", "keep one of them", call.lines.get("task", 1))
    return replace(named, problems=(*call.problems, clash))


def _tasks() -> Iterable[str]:
    """The names there are, the newest first."""
    return tuple(reversed(state.tasks))


def _describe(name: str) -> str:
    task = state.tasks[name]
    return f"{task.kind}, {len(task.train):,} train rows"


def _spec(_words: tuple[str, ...]) -> type[DoctorSpec]:
    return DoctorSpec


DOCTOR = Magic(
    name="doctor",
    usage="%doctor TASK [--model MODEL] [--max_length NUMBER]",
    about="Looks at a task's data as a model would read it: which tokens are trained, what is cut off, what repeats, contradicts or gives "
    "itself away. Says what a training would refuse and what to look into, with the fix; loads no weights.",
    body="",
    run=_run,
    spec=_spec,
    names=_tasks,
    choice="tasks",
    describe=_describe,
    waits=True,
)
