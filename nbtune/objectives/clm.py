"""Continued pretraining: every token of a text is predicted from those before it (Gururangan et al. 2020, https://arxiv.org/abs/2004.10964).

Texts are cut into rows of at most max_length tokens, and short ones are packed like any rows: no text sees another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.data.encoded import Texts
from nbtune.errors import SpecError
from nbtune.models.catalogue import DEFAULT_DECODER
from nbtune.objectives import sft

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Source
    from nbtune.spec import FinetuneSpec
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "Clm"]


class Clm:
    """See the module's text."""

    name: ClassVar[str] = "clm"
    summary: ClassVar[str] = "to go on with whole texts: continued pretraining"
    model: ClassVar[str] = DEFAULT_DECODER

    def source(self, source: Source, task: Task) -> Source:
        """The model as it is: it writes already.

        Raises:
            SpecError: the task has answers.
        """
        if task.kind != "text":
            message = f"objective clm learns whole texts, and task {task.name!r} is of kind {task.kind}"
            raise SpecError(message, hint="say kind: text in the task and drop its completion, or use objective sft")
        return source

    def reading(self, task: Task, spec: FinetuneSpec, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Texts:
        """In pieces."""
        return Texts()

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the batch's trained tokens, and their number."""
        return sft.OBJECTIVE.loss(model, batch)


OBJECTIVE: Final = Clm()
