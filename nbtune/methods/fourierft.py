"""FourierFT: a few coefficients of the update's discrete Fourier transform are trained (Gao et al. 2024, https://arxiv.org/abs/2405.03003)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.models.base import Base

__all__ = ["METHOD", "FourierFt", "FourierFtSpec"]


class FourierFtSpec(LayersSpec):
    """peft's options by peft's names and defaults, but for where it begins.

    Drawn as in the paper, the update is as large as the weights of a small layer are: measured, a model of two random layers says something
    else altogether before its first step.
    """

    n_frequency: int = option(1000, "coefficients of each layer", ge=1, scale="log", slider=(50, 10_000))
    scaling: float = option(150.0, "the update is scaled by this", gt=0, scale="log", slider=(1, 500))
    random_loc_seed: int = option(777, "seed of which frequencies", ge=0)
    init_weights: bool = option(
        True, "coefficients begin at zero, the model as the base; false: drawn from a normal distribution, as in the paper"
    )
    learning_rate: float = peak(3e-2)


class FourierFt(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "fourierft"
    summary: ClassVar[str] = "a thousand frequencies of each layer's update; far fewer parameters than LoRA"
    paper: ClassVar[str] = "https://arxiv.org/abs/2405.03003"
    kind: ClassVar[str] = "fourierft"
    spec: ClassVar[type[FinetuneSpec]] = FourierFtSpec

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`FourierFTConfig`."""
        from peft import FourierFTConfig

        return FourierFTConfig(
            n_frequency=spec.n_frequency,
            scaling=spec.scaling,
            random_loc_seed=spec.random_loc_seed,
            init_weights=spec.init_weights,
            task_type="CAUSAL_LM",
            **layers,
        )


METHOD: Final = FourierFt()
