"""VB-LoRA: every layer's low-rank factors are mixed from one bank of vectors that all layers share (https://arxiv.org/abs/2405.15179)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LAYERS, LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option, peak

__all__ = ["METHOD", "VbLora", "VbLoraSpec"]


class VbLoraSpec(LayersSpec):
    """peft's options by peft's names; its default length of 256 divides the sizes of few models, so that it is 64 here."""

    r: int = option(4, "rank of the update", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",))
    num_vectors: int = option(256, "vectors in the bank", ge=1, le=65_536, scale="log", slider=(16, 4096))
    vector_length: int = option(
        64, "length of a vector; it has to divide the sizes of every layer", ge=1, le=8192, scale="log", slider=(8, 512)
    )
    topk: int = option(2, "vectors that are mixed at a place", ge=1, le=64, slider=(1, 8))
    vblora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    init_vector_bank_bound: float = option(
        0.02, "the bank is drawn at first between this and its negative", gt=0, le=1, slider=(0.001, 0.1)
    )
    init_logits_std: float = option(0.1, "spread of the first weights of the mixture", gt=0, le=10, slider=(0.01, 1))
    learning_rate: float = peak(1e-2)


class VbLora(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "vblora"
    summary: ClassVar[str] = "low-rank updates mixed from one bank of vectors that all layers share"
    paper: ClassVar[str] = "https://arxiv.org/abs/2405.15179"
    kind: ClassVar[str] = "vblora"
    configuration: ClassVar[str] = "VBLoRAConfig"
    spec: ClassVar[type[FinetuneSpec]] = VbLoraSpec
    shares: ClassVar[tuple[str, ...]] = LAYERS  # the bank is called by the first layer that any adapter is on


METHOD: Final = VbLora()
