"""PEANuT: the update is what a small network makes of the weight itself (https://arxiv.org/abs/2410.01870)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Peanut", "PeanutSpec"]


class PeanutSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(32, "features inside the network", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",))
    depth: int = option(0, "layers between its first and last", ge=0, le=16, slider=(0, 4))
    act_fn: str = option("relu", "between its layers, by transformers' name")
    scaling: float = option(1.0, "the update is multiplied by this", gt=0, scale="log", slider=(0.01, 10))


class Peanut(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "peanut"
    summary: ClassVar[str] = "a small network that reads the weight and gives its update"
    paper: ClassVar[str] = "https://arxiv.org/abs/2410.01870"
    kind: ClassVar[str] = "peanut"
    configuration: ClassVar[str] = "PeanutConfig"
    spec: ClassVar[type[FinetuneSpec]] = PeanutSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset()  # peft reads the codes of an int8 weight as its numbers


METHOD: Final = Peanut()
