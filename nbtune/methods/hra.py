"""HRA: weights are turned by a chain of Householder reflections (Yuan et al. 2024, https://arxiv.org/abs/2405.17484)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Hra", "HraSpec"]


class HraSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    r: int = option(8, "reflections; an even number starts at the base", ge=1, le=4096, scale="log", slider=(2, 64), aliases=("rank",))
    apply_GS: bool = option(False, "make the reflections orthogonal to each other (Gram-Schmidt)")  # noqa: N815  the name it has in peft
    learning_rate: float = peak(3e-3)


class Hra(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "hra"
    summary: ClassVar[str] = "turns the weights by r reflections: LoRA's size, OFT's geometry"
    paper: ClassVar[str] = "https://arxiv.org/abs/2405.17484"
    kind: ClassVar[str] = "hra"
    spec: ClassVar[type[FinetuneSpec]] = HraSpec
    takes_conv1d: ClassVar[bool] = False
    quantizations: ClassVar[frozenset[str]] = frozenset()  # peft reads the codes of an int8 weight as its numbers

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`HRAConfig`."""
        from peft import HRAConfig

        return HRAConfig(r=spec.r, apply_GS=spec.apply_GS, task_type="CAUSAL_LM", **layers)


METHOD: Final = Hra()
