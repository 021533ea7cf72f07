"""`nbtune.doctor`: a task's data looked at as a model would read it; of the model only config and tokenizer are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import SpecError
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.spec import FinetuneSpec, Spec, option

if TYPE_CHECKING:
    from nbtune.data.doctor import Diagnosis
    from nbtune.task import Task

__all__ = ["DoctorSpec", "doctor"]

_MAX_LENGTH: Final[int] = FinetuneSpec.model_fields["max_length"].default


class DoctorSpec(Spec):
    """`%doctor`: which task, as which model reads it."""

    task: str = option("", "name of the task; left out: the only one there is", group="options")
    model: str = option(
        "",
        f"catalogue name, folder, hub id, or a bound model; left out: {DEFAULT_DECODER}",
        aliases=("model_name_or_path", "base_model"),
        group="options",
    )
    max_length: int = option(
        _MAX_LENGTH, "most tokens of a row", ge=8, aliases=("max_seq_length", "cutoff_len", "max_seq_len"), group="options"
    )


def doctor(task: Task, model: Any = DEFAULT_DECODER, max_length: int = _MAX_LENGTH) -> Diagnosis:
    """What is wrong with the data before anything is trained, and what it looks like in tokens.

    Args:
        task: what to look at.
        model: as in `finetune`; no weights are read.
        max_length: most tokens of a row, as in `finetune`.

    Raises:
        SpecError: `task` is no Task, or `max_length` is below 8.
        ModelError: there is no such model.
        DataError: chat is on, and the tokenizer has no chat template.
    """
    from nbtune.data.doctor import diagnose
    from nbtune.models.families import answering, context_of
    from nbtune.models.loading import source_of
    from nbtune.task import Task

    if not isinstance(task, Task):
        raise SpecError(
            f"task is a nbtune.Task, not {type(task).__name__}", hint="make one: nbtune.Task(data=..., prompt=..., completion=...)"
        )
    spec = DoctorSpec.build({"max_length": max_length})
    source = source_of(model or DEFAULT_DECODER)
    context = context_of(source.config)
    reading = None if task.kind in ("text", "tagging") else answering(source.config)
    return diagnose(task, source.tokenizer, max_length=spec.max_length, context=context, model=source.name, reading=reading)
