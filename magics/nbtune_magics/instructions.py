"""`%%instructions NAME`: several tasks as one of instructions, whole tasks held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune.instructions import InstructionsSpec
from nbtune_magics.magic import AS, Call, Magic
from nbtune_magics.notice import with_notice
from nbtune_magics.output import bind
from nbtune_magics.project import state
from nbtune_magics.said import no_more_words, said
from nbtune_magics.task import shown, with_name

if TYPE_CHECKING:
    from nbtune_magics.steps import Steps

__all__ = ["INSTRUCTIONS"]


def _run(call: Call) -> Steps[Any]:
    import nbtune

    call = no_more_words(call, 1, "the task that comes of it has one name; flags are written --key value")
    chosen = said(with_name(call), InstructionsSpec)
    values = {name: getattr(chosen.spec, name) for name in InstructionsSpec.model_fields}
    sets = values.pop("sets")
    bound = {name: value for name, value in call.shell.user_ns.items() if isinstance(value, nbtune.Task) and not name.startswith("_")}
    known = {**bound, **state.tasks}
    task = yield from with_notice(lambda: nbtune.instructions(sets, known=known, **values), f"{chosen.spec.name}: mixing the sets")
    state.add(task)
    shown(task)
    bind(call.shell, task.name, task, "task")
    call.shown.mark(task)
    return task


def _spec(_words: tuple[str, ...]) -> type[InstructionsSpec]:
    return InstructionsSpec


INSTRUCTIONS = Magic(
    name="instructions",
    usage="%%instructions NAME [--hold_out TASK] [--key value ...]",
    about="Mixes tasks that are defined already into one of instructions: each row is asked in one of several phrasings, some are turned "
    "round, and tasks that are held out are never trained but scored. Then: %%finetune METHOD --task NAME.",
    body="sets: {tickets: {}, reviews: {weight: 2}}, and any of the options, one `key: value` a line",
    run=_run,
    spec=_spec,
    own=(AS,),
    waits=True,
)
