"""DoRA: the length of each column is trained apart from its direction, which LoRA turns (Liu et al. 2024, https://arxiv.org/abs/2402.09353)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.lora import Lora, LoraSpec
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Dora", "DoraSpec"]


class DoraSpec(LoraSpec):
    """LoRA's options, with one set."""

    use_dora: bool = option(True, "train each column's length apart from its direction")


class Dora(Lora):
    """See the module's text."""

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "LoRA for the directions, a vector for the lengths; a little better at low rank, and slower"
    paper: ClassVar[str] = "https://arxiv.org/abs/2402.09353"
    spec: ClassVar[type[FinetuneSpec]] = DoraSpec


METHOD: Final = Dora()
