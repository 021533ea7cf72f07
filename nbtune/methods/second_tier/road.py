"""RoAd: pairs of a layer's outputs are turned and scaled, each pair by its own angle and factor (https://arxiv.org/abs/2409.00119)."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Road", "RoadSpec"]


class RoadSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    variant: Literal["road_1", "road_2", "road_4"] = option("road_1", "numbers a feature: one, two or four")
    group_size: int = option(
        64, "features within which pairs are made; it has to divide every layer's outputs", ge=2, le=8192, scale="log", slider=(2, 256)
    )


class Road(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "road"
    summary: ClassVar[str] = "turns and scales pairs of each layer's outputs; one number a feature"
    paper: ClassVar[str] = "https://arxiv.org/abs/2409.00119"
    kind: ClassVar[str] = "road"
    configuration: ClassVar[str] = "RoadConfig"
    spec: ClassVar[type[FinetuneSpec]] = RoadSpec
    takes_conv1d: ClassVar[bool] = False
    takes_blocks: ClassVar[bool] = False


METHOD: Final = Road()
