"""PiSSA: LoRA that begins at the weight's principal singular directions and trains those (Meng et al. 2024, https://arxiv.org/abs/2404.02948)."""

from __future__ import annotations

from typing import ClassVar, Final

from nbtune.methods.lora import Init, Lora, LoraSpec
from nbtune.spec import FinetuneSpec, option

__all__ = ["METHOD", "Pissa", "PissaSpec"]


class PissaSpec(LoraSpec):
    """LoRA's options, with one set."""

    init: Init = option(
        "pissa", "where A and B begin; pissa_niter_16 finds nearly the same directions, quicker", aliases=("init_lora_weights",)
    )


class Pissa(Lora):
    """See the module's text."""

    name: ClassVar[str] = "pissa"
    summary: ClassVar[str] = "LoRA that begins at what each weight does most; it learns in fewer steps, and the base stays as it is"
    paper: ClassVar[str] = "https://arxiv.org/abs/2404.02948"
    quantizations: ClassVar[frozenset[str]] = frozenset()
    spec: ClassVar[type[FinetuneSpec]] = PissaSpec


METHOD: Final = Pissa()
