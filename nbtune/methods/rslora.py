"""rsLoRA: LoRA scaled by lora_alpha / sqrt(r), which lets high ranks learn (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.lora import Lora, LoraSpec
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "RsLora", "RsLoraSpec"]


class RsLoraSpec(LoraSpec):
    """LoRA's options, with one set."""

    use_rslora: bool = option(True, "scale by lora_alpha / sqrt(r)")


class RsLora(Lora):
    """See the module's text."""

    name: ClassVar[str] = "rslora"
    summary: ClassVar[str] = "LoRA whose scale does not shrink with its rank; for ranks of 32 and more"
    paper: ClassVar[str] = "https://arxiv.org/abs/2312.03732"
    spec: ClassVar[type[FinetuneSpec]] = RsLoraSpec


METHOD: Final = RsLora()
