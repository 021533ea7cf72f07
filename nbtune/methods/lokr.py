"""LoKr: the update is a Kronecker product, of a small matrix and a low-rank one (Edalati et al. 2022, https://arxiv.org/abs/2212.10650)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Lokr", "LokrSpec"]


class LokrSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(8, "rank of the larger factor", ge=1, le=4096, scale="log", slider=(1, 64), aliases=("rank",))
    alpha: int = option(8, "the update is scaled by alpha / r", ge=1, scale="log", slider=(1, 256))
    rank_dropout: float = option(0.0, "chance of a rank to be left out in a step", ge=0, lt=1, slider=(0, 0.5))
    module_dropout: float = option(0.0, "chance of a layer's update to be left out in a step", ge=0, lt=1, slider=(0, 0.5))
    decompose_both: bool = option(False, "make the smaller factor low-rank, too")
    decompose_factor: int = option(-1, "size of the smaller factor; -1: as near to the square root as can be", ge=-1)
    learning_rate: float = peak(1e-2)


class Lokr(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "lokr"
    summary: ClassVar[str] = "a Kronecker product in place of a low-rank one; the fewest parameters for a full rank"
    paper: ClassVar[str] = "https://arxiv.org/abs/2212.10650"
    kind: ClassVar[str] = "lokr"
    spec: ClassVar[type[FinetuneSpec]] = LokrSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset({"int8"})

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`LoKrConfig`."""
        from peft import LoKrConfig

        return LoKrConfig(
            r=spec.r,
            alpha=spec.alpha,
            rank_dropout=spec.rank_dropout,
            module_dropout=spec.module_dropout,
            decompose_both=spec.decompose_both,
            decompose_factor=spec.decompose_factor,
            task_type="CAUSAL_LM",
            **layers,
        )


METHOD: Final = Lokr()
