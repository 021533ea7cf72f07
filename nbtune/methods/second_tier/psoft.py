"""PSOFT: an orthogonal turn of the weight's principal subspace is trained (https://arxiv.org/abs/2505.11235)."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Psoft", "PsoftSpec"]


class PsoftSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(32, "directions that are turned", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",))
    psoft_alpha: int = option(32, "the update is scaled by psoft_alpha / r", ge=1, scale="log", slider=(1, 256), aliases=("alpha",))
    psoft_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5))
    psoft_svd: Literal["full", "lowrank"] = option("full", "how the directions are found; lowrank is quicker and random")
    psoft_orth: bool = option(True, "keep it a turn; else any matrix may be learnt")
    psoft_mag_a: bool = option(True, "learn a factor for each direction before the turn")
    psoft_mag_b: bool = option(True, "learn a factor for each direction after it")


class Psoft(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "psoft"
    summary: ClassVar[str] = "turns the weight's principal r directions among themselves; r x r numbers a layer"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.11235"
    kind: ClassVar[str] = "psoft"
    configuration: ClassVar[str] = "PsoftConfig"
    spec: ClassVar[type[FinetuneSpec]] = PsoftSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset()


METHOD: Final = Psoft()
