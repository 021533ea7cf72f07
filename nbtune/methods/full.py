"""Full fine-tuning: every weight of the model is trained (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import ModelError
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "Full", "FullSpec", "LayerwiseSpec"]


class LayerwiseSpec(FinetuneSpec):
    """How the learning rate falls from block to block towards the input, and when each block begins to learn."""

    layerwise_lr_decay: float | None = option(
        None,
        "the learning rate of each block as a multiple of the next one's above it (ULMFiT); left out: the same for all",
        gt=0,
        le=1,
        slider=(0.5, 1),
    )
    gradual_unfreezing: float | None = option(
        None,
        "part of the run over which block after block begins to learn, from the top (ULMFiT); left out: all from the first step",
        gt=0,
        le=1,
        slider=(0.1, 1),
    )


class FullSpec(LayerwiseSpec):
    """The default rate is low, because every weight moves."""

    learning_rate: float = option(
        5e-5, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1e-2), aliases=("lr",), group="training"
    )


class Full:
    """See the module's text."""

    name: ClassVar[str] = "full"
    summary: ClassVar[str] = "all weights; the most freedom, the most memory, a whole model to store"
    paper: ClassVar[str] = "https://arxiv.org/abs/1801.06146"
    spec: ClassVar[type[FinetuneSpec]] = FullSpec
    writes_base: ClassVar[bool] = True
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: FinetuneSpec) -> None:
        """Refuses a quantized base.

        Raises:
            ModelError: the base is quantized: its weights are no numbers that a gradient could move.
        """
        if facts.quantization is not None:
            message = f"{self.name} trains the base's weights, which {facts.quantization} holds in a form that cannot be trained"
            raise ModelError(message, hint="leave quantization out, or use lora")

    def attach(self, base: Base, spec: FinetuneSpec, name: str) -> None:
        """Sets every parameter free."""
        base.train_only([base.model])


METHOD: Final = Full()
