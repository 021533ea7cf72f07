"""LoHa: the update is the Hadamard product of two low-rank ones, so of rank r squared (Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Loha", "LohaSpec"]


class LohaSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(8, "rank of each of the two updates", ge=1, le=4096, scale="log", slider=(1, 64), aliases=("rank",))
    alpha: int = option(8, "the update is scaled by alpha / r", ge=1, scale="log", slider=(1, 256))
    rank_dropout: float = option(0.0, "chance of a rank to be left out in a step", ge=0, lt=1, slider=(0, 0.5))
    module_dropout: float = option(0.0, "chance of a layer's update to be left out in a step", ge=0, lt=1, slider=(0, 0.5))
    learning_rate: float = peak(1e-2)


class Loha(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "loha"
    summary: ClassVar[str] = "the element-wise product of two low-rank updates: rank r x r for twice LoRA's parameters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2108.06098"
    kind: ClassVar[str] = "loha"
    spec: ClassVar[type[FinetuneSpec]] = LohaSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset({"int8"})

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`LoHaConfig`."""
        from peft import LoHaConfig

        return LoHaConfig(
            r=spec.r, alpha=spec.alpha, rank_dropout=spec.rank_dropout, module_dropout=spec.module_dropout, task_type="CAUSAL_LM", **layers
        )


METHOD: Final = Loha()
