"""OSF: the weight's upper singular directions are frozen, the others are trained, so that what was learnt before stays (https://arxiv.org/abs/2504.07097)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Osf", "OsfSpec"]


class OsfSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    effective_rank: float = option(0.5, "part of the singular directions that is kept as it is", gt=0, lt=1, slider=(0.1, 0.99))


class Osf(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "osf"
    summary: ClassVar[str] = "trains the lower singular directions of each weight and keeps the upper ones: against forgetting; large"
    paper: ClassVar[str] = "https://arxiv.org/abs/2504.07097"
    kind: ClassVar[str] = "osf"
    configuration: ClassVar[str] = "OSFConfig"
    spec: ClassVar[type[FinetuneSpec]] = OsfSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset()
    takes_blocks: ClassVar[bool] = False


METHOD: Final = Osf()
