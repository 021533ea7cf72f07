"""Supervised fine-tuning: cross-entropy of the answer's tokens given the prompt; the prompt itself is not learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.models.attention import attending, rows_apart
from nbtune.models.readout import readout

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch

__all__ = ["OBJECTIVE", "Sft"]


class Sft:
    """Completion-only loss."""

    name: ClassVar[str] = "sft"

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats summed over the batch's trained tokens, and their number."""
        from torch.nn import functional

        with readout(model, batch.predicts), rows_apart(model):
            logits = model(input_ids=batch.input_ids, use_cache=False, **attending(model, batch)).logits
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), len(batch.targets)


OBJECTIVE: Final = Sft()
