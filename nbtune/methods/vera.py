"""VeRA: one pair of random matrices for all layers, frozen; only two vectors a layer are trained (https://arxiv.org/abs/2310.11454)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LAYERS, LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Vera", "VeraSpec"]


class VeraSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(256, "rank of the shared random matrices", ge=1, le=8192, scale="log", slider=(16, 1024), aliases=("rank",))
    vera_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    d_initial: float = option(0.1, "first value of the inner vector", gt=0, le=1, slider=(0.01, 1))
    projection_prng_key: int = option(0, "seed of the shared matrices", ge=0)
    save_projection: bool = option(True, "keep the shared matrices in the adapter's file too; else they are drawn again from their seed")
    learning_rate: float = peak(3e-2)


class Vera(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "vera"
    summary: ClassVar[str] = "two vectors a layer between random matrices that all layers share; a tenth of LoRA's parameters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2310.11454"
    kind: ClassVar[str] = "vera"
    spec: ClassVar[type[FinetuneSpec]] = VeraSpec
    shares: ClassVar[tuple[str, ...]] = (*LAYERS, "r", "projection_prng_key", "save_projection")  # the two matrices, as large as the layers

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`VeraConfig`."""
        from peft import VeraConfig

        return VeraConfig(
            r=spec.r,
            vera_dropout=spec.vera_dropout,
            d_initial=spec.d_initial,
            projection_prng_key=spec.projection_prng_key,
            save_projection=spec.save_projection,
            task_type="CAUSAL_LM",
            **layers,
        )


METHOD: Final = Vera()
