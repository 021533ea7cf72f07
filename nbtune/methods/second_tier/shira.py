"""SHiRA: a random few of a weight's own numbers are trained, as a sparse update of high rank (https://arxiv.org/abs/2406.13175)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec
from nbtune.methods.second_tier.tuner import SecondTier
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Shira", "ShiraSpec"]


class ShiraSpec(LayersSpec):
    """peft's options by peft's names and defaults; without `random_seed` peft would draw other numbers each time."""

    r: int = option(
        32, "as many numbers are trained as by LoRA of this rank", ge=1, le=4096, scale="log", slider=(1, 128), aliases=("rank",)
    )
    random_seed: int = option(0, "seed of which numbers", ge=0)


class Shira(SecondTier):
    """See the module's text."""

    name: ClassVar[str] = "shira"
    summary: ClassVar[str] = "a sparse update: as many single numbers of each weight as LoRA of that rank would train"
    paper: ClassVar[str] = "https://arxiv.org/abs/2406.13175"
    kind: ClassVar[str] = "shira"
    configuration: ClassVar[str] = "ShiraConfig"
    spec: ClassVar[type[FinetuneSpec]] = ShiraSpec
    takes_conv1d: ClassVar[bool] = False
    takes_blocks: ClassVar[bool] = False

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`ShiraConfig`, whose mask is made where there are numbers: peft's own cannot count on a model without weights."""
        config: Any = super().config(base, spec, layers)
        config.mask_fn = _mask
        return config  # type: ignore[no-any-return]


def _mask(base_layer: Any, r: int, random_seed: int, **_: Any) -> torch.Tensor:
    """[out, in], true at r (in + out) random places, the same ones on every device."""
    import torch

    outer, inner = base_layer.out_features, base_layer.in_features
    chance = torch.Generator().manual_seed(random_seed)
    mask = torch.zeros(outer * inner, dtype=torch.bool)
    mask[torch.randperm(outer * inner, generator=chance)[: r * (inner + outer)]] = True
    where = base_layer.weight.device
    return mask.view(outer, inner).to("cpu" if where.type == "meta" else where)


METHOD: Final = Shira()
