"""Masked language modelling with next sentence prediction, as BERT was pretrained (Devlin et al. 2019, section 3.1).

The loss is the sum of both means: nats a hidden token, and nats a row for whether its second passage follows the first. A row of a step
counts by its hidden tokens there, which makes the sum the same however the step is split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from nbtune.errors import ModelError
from nbtune.models.attention import attending, rows_apart
from nbtune.models.readout import readout
from nbtune.objectives.mlm import Mlm

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch
    from nbtune.models.loading import Learns, Source
    from nbtune.task import Task

__all__ = ["OBJECTIVE", "MlmNsp"]


class MlmNsp(Mlm):
    """See the module's text."""

    name: ClassVar[Learns] = "mlm+nsp"
    summary: ClassVar[str] = "the same, and whether a passage follows another, as BERT was pretrained"

    def source(self, source: Source, task: Task) -> Source:
        """The encoder with both heads.

        Raises:
            SpecError: the task has answers.
            ModelError: the model is no BERT, or as `Mlm`.
        """
        found = super().source(source, task)
        if source.config.model_type != "bert":
            message = f"next sentence prediction has a head in BERT alone, and {source.name!r} is a {source.config.model_type}"
            raise ModelError(message, hint="use objective mlm")
        return found

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """Nats of both, summed over the hidden tokens, and their number."""
        found, weight, _ = self.measured(model, batch)
        return found, weight

    def measured(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int, dict[str, tuple[torch.Tensor, int]]]:
        """The same, and apart (sum, number): perplexity's nats over hidden tokens, nsp_accuracy's right rows."""
        from torch.nn import functional

        with readout(model, batch.predicts), rows_apart(model):
            out = model(input_ids=batch.input_ids, **attending(model, batch))
        nats = functional.cross_entropy(out.logits.float(), batch.targets, reduction="sum")
        follows, truth = out.seq_relationship_logits.float(), cast("torch.Tensor", batch.follows)
        hidden = batch.owner.bincount(minlength=batch.num_rows)
        told = (functional.cross_entropy(follows, truth, reduction="none") * hidden).sum()
        right = (follows.argmax(-1) == truth).sum()
        weight = len(batch.targets)
        return nats + told, weight, {"perplexity": (nats.detach(), weight), "nsp_accuracy": (right, batch.num_rows)}


OBJECTIVE: Final = MlmNsp()
