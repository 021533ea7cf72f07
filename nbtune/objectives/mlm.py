"""Masked language modelling: an encoder fills what is hidden of whole texts (Devlin et al. 2019, https://arxiv.org/abs/1810.04805).

Other tokens are hidden at each step (Liu et al. 2019, https://arxiv.org/abs/1907.11692); dev's are the same at each look. Of the model's
head over the vocabulary the layers above the last block are trained with whatever else is: many encoders come without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.masking import Masking
from nbtune.errors import ModelError, SpecError
from nbtune.models.catalogue import DEFAULT_ENCODER
from nbtune.models.families import is_encoder
from nbtune.objectives import sft

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Learns, Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Mlm"]


class Mlm:
    """See the module's text."""

    name: ClassVar[Learns] = "mlm"
    summary: ClassVar[str] = "to fill what is hidden of whole texts: continued pretraining of encoders"
    model: ClassVar[str] = DEFAULT_ENCODER

    def source(self, source: Source, task: Task) -> Source:
        """The encoder with its head over the vocabulary.

        Raises:
            SpecError: the task has answers.
            ModelError: the model is no encoder, or bound as an object.
        """
        if task.kind != "text":
            message = f"objective {self.name} learns whole texts, and task {task.name!r} is of kind {task.kind}"
            raise SpecError(message, hint="say kind: text in the task and drop its completion, or use another objective")
        if source.bound is not None:
            message = f"a head over the vocabulary needs the model's files, and {source.name!r} is bound as an object"
            raise ModelError(message, hint="give its folder or name")
        if not is_encoder(source.config):
            message = f"model {source.name!r} ({source.config.model_type}) reads from left to right, and cannot fill what is hidden"
            raise ModelError(message, hint=f"use objective clm, or an encoder such as {DEFAULT_ENCODER}")
        return source.to_learn(self.name)

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Masking:
        """With a part of it hidden."""
        return Masking.of(tokenizer, probability=spec.mlm_probability, whole_words=spec.whole_word_mask, sentences="nsp" in self.name)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the hidden tokens, and their number."""
        return sft.OBJECTIVE.loss(model, batch)


OBJECTIVE: Final = Mlm()
