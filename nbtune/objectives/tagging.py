"""Tagging: a new linear head gives each word a tag, read at the word's first token (Devlin et al. 2019, https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.encoded import Tagging
from nbtune.errors import SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import is_encoder
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "WordTags", "tag_logits"]


class WordTags:
    """See the module's text."""

    name: ClassVar[str] = "tagging"
    summary: ClassVar[str] = "a new head that tags each word; encoders and decoders"
    model: ClassVar[str] = DEFAULT_ENCODER

    def source(self, source: Source, task: Task) -> Source:
        """The model with a head over the task's tags.

        Raises:
            SpecError: the task has no tags.
            ModelError: the model is an object of the user's.
        """
        if task.kind != "tagging":
            message = f"objective tagging needs a task of that kind, and {task.name!r} is {task.kind}"
            raise SpecError(message, hint="say kind: tagging in the task, or use another objective")
        return source.over(task.head_labels)

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Tagging:
        """By words."""
        return Tagging(tuple(task.labels), is_encoder(config))

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the words, and their number."""
        from torch.nn import functional

        return functional.cross_entropy(tag_logits(model, batch), batch.targets, reduction="sum"), len(batch.targets)


def tag_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Logits [words, tags] in float32, row by row."""
    with readout(model, batch.predicts), rows_apart(model):
        logits: torch.Tensor = model(input_ids=batch.input_ids, **attending(model, batch)).logits
    return logits.float()


OBJECTIVE: Final = WordTags()
