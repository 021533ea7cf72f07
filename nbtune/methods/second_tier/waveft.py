"""WaveFT: a few coefficients of the update's wavelet transform are trained (https://arxiv.org/abs/2505.12532)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "WaveFt", "WaveFtSpec"]


class WaveFtSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    n_frequency: int = option(2592, "coefficients of each layer", ge=1, scale="log", slider=(50, 10_000))
    scaling: float = option(25.0, "the update is scaled by this", gt=0, scale="log", slider=(1, 500))
    wavelet_family: str = option("db1", "wavelet, by its usual name: db1, sym2, coif1")
    use_idwt: bool = option(True, "transform back; else the coefficients are the update's own numbers, which is quicker")
    random_loc_seed: int = option(777, "seed of which coefficients", ge=0)


class WaveFt(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "waveft"
    summary: ClassVar[str] = "a few thousand wavelet coefficients of each layer's update; FourierFT with wavelets"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.12532"
    kind: ClassVar[str] = "waveft"
    configuration: ClassVar[str] = "WaveFTConfig"
    spec: ClassVar[type[FinetuneSpec]] = WaveFtSpec


METHOD: Final = WaveFt()
