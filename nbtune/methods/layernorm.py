"""Norm tuning: the weights (and biases) of the norms are trained, nothing else (Zhao et al. 2023, https://arxiv.org/abs/2312.11420)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from nbtune.errors import ModelError
from nbtune.spec import FinetuneSpec, peak

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "LayerNorm", "LayerNormSpec"]


class LayerNormSpec(FinetuneSpec):
    """No options of its own."""

    learning_rate: float = peak(5e-3)


class LayerNorm:
    """See the module's text."""

    name: ClassVar[str] = "layernorm"
    summary: ClassVar[str] = "the norms only: a few thousand numbers that rescale what each block reads"
    paper: ClassVar[str] = "https://arxiv.org/abs/2312.11420"
    spec: ClassVar[type[FinetuneSpec]] = LayerNormSpec
    writes_base: ClassVar[bool] = True
    kind: ClassVar[str | None] = None
    merges: ClassVar[bool] = True

    def requires(self, facts: Facts, spec: FinetuneSpec) -> None:
        """Works wherever there are norms; they are never quantized."""

    def attach(self, base: Base, spec: FinetuneSpec, name: str) -> None:
        """Sets every norm free.

        Raises:
            ModelError: the model has none that is known as one by its class.
        """
        norms = [module for module in base.model.modules() if "norm" in type(module).__name__.lower()]
        if not any(True for norm in norms for _ in norm.parameters()):
            message = f"{base.name!r} has no norms for layernorm to train"
            raise ModelError(message, hint="use lora")
        base.train_only(norms)


METHOD: Final = LayerNorm()
