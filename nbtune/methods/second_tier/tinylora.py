"""TinyLoRA: one short vector a layer is trained, which fixed random projections spread over the weight's singular vectors (https://arxiv.org/abs/2602.04118)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LAYERS, LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option, peak

__all__ = ["METHOD", "TinyLora", "TinyLoraSpec"]


class TinyLoraSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(2, "singular vectors of the weight that are used", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",))
    u: int = option(64, "numbers that are trained for a layer", ge=1, le=65_536, scale="log", slider=(1, 512))
    weight_tying: float = option(0.0, "part of the layers that share their vector; 1: one for all", ge=0, le=1, slider=(0, 1))
    tinylora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    projection_seed: int = option(42, "seed of the random projections", ge=0)
    save_projection: bool = option(True, "keep the projections in the adapter's file too; else they are drawn again from their seed")
    learning_rate: float = peak(1e-2)


class TinyLora(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "tinylora"
    summary: ClassVar[str] = "a vector of dozens of numbers a layer, spread over the weight's own singular vectors"
    paper: ClassVar[str] = "https://arxiv.org/abs/2602.04118"
    kind: ClassVar[str] = "tinylora"
    configuration: ClassVar[str] = "TinyLoraConfig"
    spec: ClassVar[type[FinetuneSpec]] = TinyLoraSpec
    shares: ClassVar[tuple[str, ...]] = (*LAYERS, "save_projection")  # a layer's number, from which its projection is drawn
    quantizations: ClassVar[frozenset[str]] = frozenset()


METHOD: Final = TinyLora()
