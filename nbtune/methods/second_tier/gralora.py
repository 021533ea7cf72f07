"""GraLoRA: the weight is cut into k x k blocks, each of which has a low-rank update of its own (https://arxiv.org/abs/2505.20355)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "GraLora", "GraLoraSpec"]


class GraLoraSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(
        32,
        "rank of all blocks of a row together; gralora_k has to divide it",
        ge=1,
        le=4096,
        scale="log",
        slider=(1, 128),
        aliases=("rank",),
    )
    alpha: int = option(64, "the update is scaled by alpha / (r + hybrid_r)", ge=1, scale="log", slider=(1, 256))
    gralora_k: int = option(2, "blocks to a side; it has to divide the sizes of every layer", ge=1, le=64, slider=(1, 8))
    hybrid_r: int = option(0, "rank of a plain LoRA beside it", ge=0, le=4096, slider=(0, 64))
    gralora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))


class GraLora(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "gralora"
    summary: ClassVar[str] = "LoRA block by block: the same parameters, k times the rank"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.20355"
    kind: ClassVar[str] = "gralora"
    configuration: ClassVar[str] = "GraloraConfig"
    spec: ClassVar[type[FinetuneSpec]] = GraLoraSpec
    quantizations: ClassVar[frozenset[str]] = frozenset()  # as with c3a


METHOD: Final = GraLora()
