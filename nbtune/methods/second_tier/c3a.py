"""C3A: the update is made of circulant blocks, each of them one trained vector that is convolved with the input (https://arxiv.org/abs/2407.19342)."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "C3a", "C3aSpec"]


class C3aSpec(LayersSpec):
    """peft's options by peft's names; its default block of 256 divides the sizes of few models, so that it is 64 here."""

    block_size: int = option(
        64,
        "side of a block; it has to divide the sizes of every layer, and the larger, the fewer are trained",
        ge=1,
        le=8192,
        scale="log",
        slider=(8, 512),
    )
    init_weights: Literal["gaussian", "kaiming_uniform", "xavier_uniform"] = option("xavier_uniform", "how the vectors are drawn at first")


class C3a(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "c3a"
    summary: ClassVar[str] = "circulant blocks beside the weights: a full rank for one vector a block"
    paper: ClassVar[str] = "https://arxiv.org/abs/2407.19342"
    kind: ClassVar[str] = "c3a"
    configuration: ClassVar[str] = "C3AConfig"
    spec: ClassVar[type[FinetuneSpec]] = C3aSpec
    takes_conv1d: ClassVar[bool] = False
    # peft adds in place to what a layer of 4 bits, or one of 8 bits with a bias, gives as a view.
    quantizations: ClassVar[frozenset[str]] = frozenset()


METHOD: Final = C3a()
