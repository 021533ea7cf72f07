"""RandLoRA: a full-rank update, as a sum of frozen random low-rank products that are scaled by learnt diagonals (https://arxiv.org/abs/2502.00987)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from nbtune.methods.layers import LAYERS, LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "RandLora", "RandLoraSpec"]


class RandLoraSpec(LayersSpec):
    """peft's options by peft's names and defaults, but the random matrices are drawn again, which peft would write once a layer."""

    r: int = option(
        32, "rank of a random basis; the lower, the more of them there are", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",)
    )
    randlora_alpha: int = option(640, "the update is scaled by randlora_alpha / r", ge=1, scale="log", slider=(1, 2048), aliases=("alpha",))
    randlora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    sparse: bool = option(False, "random bases of -1, 0 and 1, two thirds of them 0")
    very_sparse: bool = option(False, "random bases of -1, 0 and 1, nearly all of them 0")
    projection_prng_key: int = option(0, "seed of the random matrices", ge=0)


class RandLora(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "randlora"
    summary: ClassVar[str] = "a full-rank update out of frozen random bases that learnt diagonals weigh; the lower r, the more is trained"
    paper: ClassVar[str] = "https://arxiv.org/abs/2502.00987"
    kind: ClassVar[str] = "randlora"
    configuration: ClassVar[str] = "RandLoraConfig"
    spec: ClassVar[type[FinetuneSpec]] = RandLoraSpec
    shares: ClassVar[tuple[str, ...]] = (*LAYERS, "r", "sparse", "very_sparse", "projection_prng_key")  # the bases, and how many they are
    merges: ClassVar[bool] = False  # merged, its logits were seen to be 1e-3 away
    fixed: ClassVar[Mapping[str, Any]] = {"save_projection": False}


METHOD: Final = RandLora()
