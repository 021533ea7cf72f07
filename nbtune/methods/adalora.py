"""AdaLoRA: a budget of ranks that moves to the layers where it matters while training (Zhang et al. 2023, https://arxiv.org/abs/2303.10512).

The update is (lora_alpha / init_r) B E A with E diagonal. It begins at `init_r` everywhere; from step `tinit` on the least important
entries of E are set to zero, until `target_r` a layer are left on average, and for the last `tfinal` steps it stays at that. B and A are
held to be orthogonal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.errors import SpecError
from nbtune.methods.layers import LayersSpec, LayerTuner
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from peft import PeftConfig

    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "AdaLora", "AdaLoraSpec"]

_BUDGET: Final = "budget of ranks"


class AdaLoraSpec(LayersSpec):
    """peft's options by peft's names and defaults, but `tinit` and `tfinal`: their 0 leaves no steps to begin and to settle in."""

    init_r: int = option(12, "rank at first", ge=2, le=4096, scale="log", slider=(2, 128))
    target_r: int = option(8, "rank in the end, on average", ge=1, le=4096, scale="log", slider=(1, 64), aliases=("r", "rank"))
    lora_alpha: float = option(8, "the update is scaled by lora_alpha / init_r", gt=0, scale="log", slider=(1, 256), aliases=("alpha",))
    lora_dropout: float = option(0.0, "dropout on the update's input", ge=0, lt=1, slider=(0, 0.5), aliases=("dropout",))
    tinit: int | None = option(None, "steps before the budget falls; left out: a tenth", ge=0, slider=(0, 500), group=_BUDGET)
    tfinal: int | None = option(None, "steps after it has fallen; left out: three tenths", ge=0, slider=(0, 500), group=_BUDGET)
    deltaT: int = option(1, "steps between two looks at the budget", ge=1, slider=(1, 100), group=_BUDGET)  # noqa: N815  its name in peft
    beta1: float = option(0.85, "decay of the mean of importance", gt=0, lt=1, group=_BUDGET)
    beta2: float = option(0.85, "decay of the mean of its uncertainty", gt=0, lt=1, group=_BUDGET)
    orth_reg_weight: float = option(0.5, "weight of the orthogonality of A and B in the loss", ge=0, slider=(0, 1), group=_BUDGET)
    learning_rate: float = peak(1e-2)


class AdaLora(LayerTuner):
    """See the module's text."""

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "LoRA whose ranks go, while it trains, to the layers that need them"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.10512"
    kind: ClassVar[str] = "adalora"
    rank: ClassVar[str] = "init_r"
    remembers: ClassVar[int] = 12
    """This step's importance, its running mean and that of its uncertainty, in float32."""
    spec: ClassVar[type[FinetuneSpec]] = AdaLoraSpec

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a budget that does not fall, and steps that leave no time for it.

        Raises:
            SpecError: either, or as in `LayerTuner`.
            ModelError: as in `LayerTuner`.
        """
        if spec.target_r >= spec.init_r:
            message = f"target_r is {spec.target_r} and init_r {spec.init_r}: there is no rank to take away"
            raise SpecError(message, hint="use an init_r above target_r (half as much again is usual), or lora")
        if spec.max_steps is not None:
            from nbtune.methods.rank_budget import phases

            phases(spec, spec.max_steps)
        super().requires(facts, spec)

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the adapter and its budget.

        Raises:
            SpecError, ModelError: as in `LayerTuner`.
        """
        from nbtune.methods.rank_budget import RankBudget

        super().attach(base, spec, name)
        config: Any = base.adapter_config(name)
        config.inference_mode = True  # peft has one adapter with a budget at a time, which it keeps itself; ours are each on their own
        for module in base.model.modules():
            counts: Any = getattr(module, "ranknum", {})
            if name in counts:
                counts[name].requires_grad_(False)  # peft's casts on a 4-bit base set them free
        base.callbacks[name] = RankBudget(base.model, config, spec, name)

    def config(self, base: Base, spec: Any, layers: dict[str, Any]) -> PeftConfig:
        """`AdaLoraConfig`; the course of the budget is known when the steps are."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=spec.init_r,
            target_r=spec.target_r,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            deltaT=spec.deltaT,
            beta1=spec.beta1,
            beta2=spec.beta2,
            orth_reg_weight=spec.orth_reg_weight,
            total_step=1,
            task_type="CAUSAL_LM",
            **layers,
        )


METHOD: Final = AdaLora()
