"""Regression: a new linear head gives one number, read off the model's last states; the loss is the squared error.

The numbers are learnt in units of their standard deviation in the training rows away from their mean, so that a learning rate suits
prices as well as stars.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.encoded import Reading
from nbtune.errors import SpecError
from nbtune.metrics.numbers import number_of
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import is_encoder
from nbtune.objectives.classification import class_logits, pooling_for

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Regression"]


class Regression:
    """See the module's text."""

    name: ClassVar[str] = "regression"
    summary: ClassVar[str] = "a new head that gives a number; encoders and decoders"
    model: ClassVar[str] = DEFAULT_ENCODER

    def source(self, source: Source, task: Task) -> Source:
        """The model with a head of one output.

        Raises:
            SpecError: the task's answers are no numbers.
            ModelError: the model is an object of the user's.
        """
        if task.kind != "regression":
            message = f"objective regression needs a task of that kind, and {task.name!r} is {task.kind}"
            raise SpecError(message, hint="say kind: regression in the task, or use another objective")
        return source.over(task.head_labels)

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Reading:
        """At the places of `pooling`, in units of the training rows' standard deviation.

        Raises:
            SpecError: as `pooling_for`.
        """
        from statistics import fmean, pstdev

        learned = [value for item in task.train if (value := number_of(item.completion)) is not None]
        how = Reading(task.head_labels, pooling_for(spec, config), is_encoder(config), of="number")
        return replace(how, centre=fmean(learned), spread=pstdev(learned) or 1.0)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Squared errors summed over the rows, and their number."""
        found = class_logits(model, batch)[:, 0]
        return (found - batch.targets.float()).square().sum(), len(found)


OBJECTIVE: Final = Regression()
