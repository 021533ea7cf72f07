"""Classification: a new linear head over the classes reads the model's last states; nothing is written.

The head h gives each class a logit W h + b; a text is read at its first token ([CLS], Devlin et al. 2019,
https://arxiv.org/abs/1810.04805), at its last (the only one of a decoder that has seen all of it), or at all of them on average, which for
a linear head is the head of their mean. The loss is the cross-entropy of the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.encoded import Reading
from nbtune.errors import SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import head, is_encoder
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Classification", "class_logits", "pooled_states"]


class Classification:
    """See the module's text."""

    name: ClassVar[str] = "classification"
    summary: ClassVar[str] = "a new head over the classes; encoders and decoders"
    model: ClassVar[str] = DEFAULT_ENCODER

    def source(self, source: Source, task: Task) -> Source:
        """The model with a head over the task's labels.

        Raises:
            SpecError: the task has no labels.
            ModelError: the model is an object of the user's.
        """
        if task.kind != "classification":
            message = f"objective classification needs a task of that kind, and {task.name!r} is {task.kind}"
            raise SpecError(message, hint="say kind: classification in the task, or use objective sft")
        return source.over(tuple(task.labels))

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig) -> Reading:
        """At the places of `pooling`; auto: all of an encoder's on average, the last of a decoder's.

        Raises:
            SpecError: a decoder is to be read at its first token, which has seen nothing else.
        """
        both_ways = is_encoder(config)
        if spec.pooling == "cls" and not both_ways:
            message = f"pooling cls reads the first token, and a {config.model_type} model has seen nothing else there"
            raise SpecError(message, hint="use pooling last or mean")
        pooling = ("mean" if both_ways else "last") if spec.pooling == "auto" else spec.pooling
        return Reading(tuple(task.labels), pooling, both_ways)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the rows, and their number."""
        from torch.nn import functional

        return functional.cross_entropy(class_logits(model, batch), batch.targets, reduction="sum"), len(batch.targets)


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits [rows, classes] in float32, those of the places that are read averaged over each row."""
    with readout(model, batch.predicts), rows_apart(model):
        logits: torch.Tensor = model(input_ids=batch.input_ids, **attending(model, batch)).logits
    return _averaged(logits.float(), batch)


def pooled_states(model: Any, batch: Batch) -> torch.Tensor:
    """The states [rows, hidden] that the head would read, in float32, likewise averaged."""
    seen: list[torch.Tensor] = []
    with readout(model, batch.predicts), rows_apart(model):
        watching = head(model).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        try:
            model(input_ids=batch.input_ids, **attending(model, batch))
        finally:
            watching.remove()
    return _averaged(seen[0].float(), batch)


def _averaged(read: torch.Tensor, batch: Batch) -> torch.Tensor:
    """What was read at each place [n, any], averaged over each row's places [rows, any]."""
    rows = len(batch.targets)
    if len(read) == rows:
        return read
    counts = batch.owner.bincount(minlength=rows)
    return read.new_zeros(rows, read.shape[-1]).index_add(0, batch.owner, read) / counts[:, None]


OBJECTIVE: Final = Classification()
