"""OFT: weights are turned by a block-diagonal orthogonal matrix (Qiu et al. 2023, https://arxiv.org/abs/2306.07280; OFTv2, https://arxiv.org/abs/2506.19847)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "Oft", "OftSpec"]


class OftSpec(LayersSpec):
    """peft's options by peft's names and defaults."""

    oft_block_size: int = option(32, "side of a block of the rotation", ge=2, le=4096, scale="log", slider=(4, 256))
    module_dropout: float = option(0.0, "chance of a block not to be turned in a step", ge=0, lt=1, slider=(0, 0.5))
    block_share: bool = option(False, "one block for all of a layer")
    coft: bool = option(False, "keep the rotation near the identity (constrained OFT)")
    eps: float = option(6e-5, "how near, with coft", gt=0, le=1, scale="log", slider=(1e-6, 1e-2))
    learning_rate: float = peak(1e-4)


class Oft(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "oft"
    summary: ClassVar[str] = "turns the weights without stretching them, so that angles between neurons stay"
    paper: ClassVar[str] = "https://arxiv.org/abs/2306.07280"
    kind: ClassVar[str] = "oft"
    spec: ClassVar[type[FinetuneSpec]] = OftSpec
    takes_conv1d: ClassVar[bool] = False

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`OFTConfig`."""
        from peft import OFTConfig

        return OFTConfig(
            oft_block_size=spec.oft_block_size,
            module_dropout=spec.module_dropout,
            block_share=spec.block_share,
            coft=spec.coft,
            eps=spec.eps,
            task_type="CAUSAL_LM",
            **layers,
        )


METHOD: Final = Oft()
