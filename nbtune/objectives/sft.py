"""Supervised fine-tuning: cross-entropy of the answer's tokens given the prompt; the prompt itself is not learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.errors import SpecError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.models.families import answering
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.data.encoded import Answering
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Sft"]


class Sft:
    """Completion-only loss."""

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "to write the completion after the prompt"
    model: ClassVar[str] = DEFAULT_DECODER

    def source(self, source: Source, task: Task) -> Source:
        """The model as it is: it writes already.

        Raises:
            SpecError: the task has no answers.
        """
        if task.kind in ("text", "tagging"):
            message = f"objective sft learns answers, and task {task.name!r} is of kind {task.kind}, which has none"
            raise SpecError(message, hint=f"use objective {'clm' if task.kind == 'text' else 'tagging'}")
        return source

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Answering | None:
        """The answer goes on behind the prompt, or is written by the decoder of a model whose encoder reads the prompt."""
        return answering(config)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the batch's trained tokens, and their number."""
        from torch.nn import functional

        with readout(model, batch.predicts), rows_apart(model):
            logits = model(input_ids=batch.input_ids, **attending(model, batch)).logits
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), len(batch.targets)


OBJECTIVE: Final = Sft()
