"""MiSS: one small matrix is added to every shard of a weight, so that shards share their update (https://arxiv.org/abs/2409.15371)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Miss", "MissSpec"]


class MissSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(
        64, "rank of the update: numbers that are trained for each output", ge=1, le=4096, scale="log", slider=(2, 256), aliases=("rank",)
    )
    miss_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))


class Miss(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "miss"
    summary: ClassVar[str] = "one trained matrix for all shards of a weight; about half of LoRA's parameters at the same rank"
    paper: ClassVar[str] = "https://arxiv.org/abs/2409.15371"
    kind: ClassVar[str] = "miss"
    configuration: ClassVar[str] = "MissConfig"
    spec: ClassVar[type[FinetuneSpec]] = MissSpec
    takes_conv1d: ClassVar[bool] = False


METHOD: Final = Miss()
