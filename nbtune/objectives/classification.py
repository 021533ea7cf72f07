"""Classification: a new linear head over the classes reads the model's last states; nothing is written.

Of a task of kind multi-label each label is a question of its own, yes or no; the loss is the mean of their binary cross-entropies.

The head h gives each class a logit W h + b; a text is read at its first token ([CLS], Devlin et al. 2019,
https://arxiv.org/abs/1810.04805), at its last (the only one of a decoder that has seen all of it), or at all of them on average, which for
a linear head is the head of their mean. The loss is the cross-entropy of the class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.encoded import Reading
from nbtune.errors import SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import head, is_encoder
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Pooling
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Classification", "class_logits", "pooled_states", "pooling_for"]


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
        if task.kind not in ("classification", "multi-label"):
            message = f"objective {self.name} needs a task of classes, and {task.name!r} is {task.kind}"
            from nbtune.objectives import suiting

            raise SpecError(message, hint=f"say kind: classification or multi-label in the task, or use objective {suiting(task)}")
        return source.over(task.head_labels)

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Reading:
        """At the places of `pooling`; auto: all of an encoder's on average, the last of a decoder's.

        Raises:
            SpecError: a decoder is to be read at its first token, which has seen nothing else; weights of classes where a row has several.
        """
        several = task.kind == "multi-label"
        if several and spec.class_weights != "none":
            message = f"class_weights is {spec.class_weights}, and a row of task {task.name!r} may have several labels"
            raise SpecError(message, hint="leave class_weights out")
        how = Reading(task.head_labels, pooling_for(spec, config), is_encoder(config), of="labels" if several else "class")
        return replace(how, weights=_balanced(task)) if spec.class_weights == "balanced" else how

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the rows, each by its weight, and their number."""
        from torch.nn import functional

        logits = class_logits(model, batch)
        if batch.targets.is_floating_point():  # for each of several labels 1 or 0
            wanted = batch.targets.view_as(logits)
            each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)
        else:
            each = functional.cross_entropy(logits, batch.targets, reduction="none")
        return (each if batch.weights is None else each * batch.weights).sum(), len(logits)


def pooling_for(spec: FinetuneSpec, config: PretrainedConfig) -> Pooling:
    """Where a text is read: as is said, or all of it by an encoder, at its last token by a decoder.

    Raises:
        SpecError: a decoder is to be read at its first token, which has seen nothing else.
    """
    both_ways = is_encoder(config)
    if spec.pooling == "cls" and not both_ways:
        message = f"pooling cls reads the first token, and a {config.model_type} model has seen nothing else there"
        raise SpecError(message, hint="use pooling last or mean")
    return ("mean" if both_ways else "last") if spec.pooling == "auto" else spec.pooling


def _balanced(task: Task) -> tuple[float, ...]:
    """N / (classes n_c) for each class of the training rows (King and Zeng 2001), so that the weights of all rows average 1."""
    counts = task.label_counts(task.train)
    there = sum(counts[label] > 0 for label in task.labels)
    return tuple(len(task.train) / (there * counts[label]) if counts[label] else 1.0 for label in task.labels)


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """What the head gives [rows, outputs] in float32, those of the places that are read averaged over each row."""
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
    rows = batch.num_rows
    if len(read) == rows:
        return read
    counts = batch.owner.bincount(minlength=rows)
    return read.new_zeros(rows, read.shape[-1]).index_add(0, batch.owner, read) / counts[:, None]


OBJECTIVE: Final = Classification()
