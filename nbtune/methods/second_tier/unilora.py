"""Uni-LoRA: all of LoRA's factors are looked up, by a random projection, in one trained vector (https://arxiv.org/abs/2506.00799)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LAYERS, LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option, peak

__all__ = ["METHOD", "UniLora", "UniLoraSpec"]


class UniLoraSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(4, "rank of the update", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",))
    theta_d_length: int = option(256, "numbers that are trained, in all layers together", ge=1, scale="log", slider=(64, 65_536))
    proj_seed: int = option(42, "seed of the projection", ge=0)
    init_theta_d_bound: float = option(0.02, "they are drawn at first between this and its negative", gt=0, le=1, slider=(0.001, 0.1))
    save_indices: bool = option(False, "keep the projection in the adapter's file too; else it is drawn again from its seed")
    unilora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    learning_rate: float = peak(1e-2)


class UniLora(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "unilora"
    summary: ClassVar[str] = "the factors of all layers out of one trained vector; as few parameters as are asked for"
    paper: ClassVar[str] = "https://arxiv.org/abs/2506.00799"
    kind: ClassVar[str] = "unilora"
    configuration: ClassVar[str] = "UniLoraConfig"
    spec: ClassVar[type[FinetuneSpec]] = UniLoraSpec
    shares: ClassVar[tuple[str, ...]] = LAYERS  # the vector is called by the first layer that any adapter is on
    quantizations: ClassVar[frozenset[str]] = frozenset()


METHOD: Final = UniLora()
