"""BOFT: weights are turned by a product of sparse butterfly rotations (Liu et al. 2023, https://arxiv.org/abs/2311.06243)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Boft", "BoftSpec"]


class BoftSpec(LayersSpec):
    """peft's options by peft's names and defaults, but for `boft_n_butterfly_factor`: without a compiled extension peft sets it to 1."""

    boft_block_size: int = option(4, "side of a block of the rotations", ge=2, le=4096, scale="log", slider=(2, 64))
    boft_dropout: float = option(0.0, "chance of a block not to be turned in a step", ge=0, lt=1, slider=(0, 0.5))
    learning_rate: float = peak(3e-3)


class Boft(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "boft"
    summary: ClassVar[str] = "OFT whose rotation is a product of sparse ones, which reaches all with fewer parameters"
    paper: ClassVar[str] = "https://arxiv.org/abs/2311.06243"
    kind: ClassVar[str] = "boft"
    spec: ClassVar[type[FinetuneSpec]] = BoftSpec
    takes_conv1d: ClassVar[bool] = False

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`BOFTConfig`."""
        from peft import BOFTConfig

        warnings.filterwarnings("ignore", message="Failed to load the CUDA extension")  # peft then computes in plain torch
        return BOFTConfig(boft_block_size=spec.boft_block_size, boft_dropout=spec.boft_dropout, task_type="CAUSAL_LM", **layers)


METHOD: Final = Boft()
