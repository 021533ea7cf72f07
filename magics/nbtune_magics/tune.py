"""`%tune METHOD`: sliders made from the method's options, the cell they stand for, and a button that trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from nbtune import methods
from nbtune.body import write_body
from nbtune.errors import SpecError
from nbtune_magics.finetune import describe, method_of, spec_of
from nbtune_magics.line import Word, split_line
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.output import Place, show, variable
from nbtune_magics.said import no_more_words, said_of_task

if TYPE_CHECKING:
    from nbtune import Task
    from nbtune_magics.said import Said
    from nbtune_magics.steps import Steps

__all__ = ["TUNE", "cell_text"]

Values = Mapping[str, Any]
_SAID_ON_THE_LINE: Final = frozenset({"task", "model", "name"})


def _run(call: Call) -> Steps[Any]:
    method = method_of(call)
    call = no_more_words(call, 1, "one method a form; flags are written --key value")
    chosen, task = said_of_task(call, method.spec)
    from nbtune_widgets.tune import tune_form

    form = tune_form(
        [item for item in method.spec.options() if item.name not in _SAID_ON_THE_LINE],
        {key: value for key, value in chosen.given.items() if key not in _SAID_ON_THE_LINE},
        method=method.name,
        cell_text=lambda values: cell_text(method.name, task.name, chosen, values),
        count=_count(method.name, chosen, task),
        on_run=_on_run(method.name, task, chosen, Place(call.shell), call),
    )
    show(form)
    return None
    yield  # a generator, as every magic's run is


def cell_text(method: str, task: str, chosen: Said, values: Values) -> str:
    """The `%%finetune` cell that does what the form says."""
    given = {"model": chosen.spec.model or None, "name": chosen.name or chosen.spec.name}
    flags = [f"--task {_word(task)}", *(f"--{'as' if name == 'name' else name} {_word(value)}" for name, value in given.items() if value)]
    return f"%%finetune {method} {' '.join(flags)}\n{write_body(values)}"


def _word(text: str) -> str:
    """One word of a line, in quotes where it would not stay one."""
    with contextlib.suppress(SpecError):
        if split_line(f"x{text}") == (Word(f"x{text}"),):
            return text
    return "'" + text + "'" if "'" not in text else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _count(method: str, chosen: Said, task: Task) -> Callable[[Values], str]:
    def count(values: Values) -> str:
        import nbtune
        from nbtune.objectives import WRITES, objective_for

        model = {"model": chosen.given["model"]} if "model" in chosen.given else {}
        said = {key: chosen.given[key] for key in ("objective",) if key in chosen.given}
        objective = objective_for(methods.get(method), {**said, **model, **values}, task)
        learnt = {} if objective in WRITES else {"task": task, "objective": objective}
        found = nbtune.estimate(method, **{**model, **learnt, **values})
        share = found.trainable_parameters / max(1, found.total_parameters)
        return f"{found.trainable_parameters:,} trained parameters of {found.total_parameters:,} ({share:.2%})"

    return count


def _on_run(method: str, task: Task, chosen: Said, place: Place, call: Call) -> Callable[[Values], None]:
    def run(values: Values) -> None:
        import nbtune
        from nbtune_widgets.panel import RunPanel

        kept = {key: chosen.given[key] for key in ("model", "name") if key in chosen.given}
        started = nbtune.finetune(method, task=task, **kept, **values)
        with place.here():
            RunPanel(started).show()
        if chosen.name is not None:
            call.shell.user_ns[variable(chosen.name)] = started

    return run


TUNE = Magic(
    name="tune",
    usage="%tune METHOD --task NAME [--model MODEL] [--key value ...]",
    about="Sliders for a method's options with the count of trained parameters; Run trains, and the %%finetune cell that does the same "
    "can be copied.",
    run=_run,
    spec=spec_of,
    own=(AS,),
    names=methods.names,
    choice="methods",
    describe=describe,
)
