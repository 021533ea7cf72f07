"""LLaMA-Adapter: each of the last blocks attends to a few trained vectors, too, through gates that start at zero.

Zhang et al. 2023, https://arxiv.org/abs/2303.16199. A head with queries Q gives softmax(Q K') V + tanh(g) softmax(Q K_p') V_p, where K_p
and V_p are what the block's own projections make of the prompt, and g = 0 at first: training starts from the model as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.errors import ModelError, SpecError
from nbtune.spec import FinetuneSpec, option

if TYPE_CHECKING:
    from nbtune.methods.base import Facts
    from nbtune.models.base import Base

__all__ = ["METHOD", "AdaptionPrompt", "AdaptionPromptSpec"]

_FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "granite")
"""Those whose attention is a Llama's: queries, keys and values by projections of their own, and rotary positions."""


class AdaptionPromptSpec(FinetuneSpec):
    """How long the prompts are, and how many blocks have one."""

    adapter_len: int = option(10, "vectors in each prompt", ge=1, le=1024, scale="log", slider=(1, 64))
    adapter_layers: int | None = option(None, "blocks from the top that have a prompt; left out: all", ge=1, slider=(1, 32))
    learning_rate: float = option(1e-2, "peak learning rate", gt=0, le=1, scale="log", slider=(1e-6, 1), aliases=("lr",), group="training")


class AdaptionPrompt:
    """See the module's text."""

    name: ClassVar[str] = "adaption-prompt"
    summary: ClassVar[str] = "trained vectors that the blocks attend to through gates which open from zero (LLaMA-Adapter)"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.16199"
    spec: ClassVar[type[FinetuneSpec]] = AdaptionPromptSpec
    writes_base: ClassVar[bool] = False
    kind: ClassVar[str | None] = "adaption"
    merges: ClassVar[bool] = False

    def requires(self, facts: Facts, spec: Any) -> None:
        """Refuses a family whose attention is another than Llama's, and more blocks than there are.

        Raises:
            ModelError: the family.
            SpecError: `adapter_layers` is more than the model has.
        """
        family = facts.config.model_type
        if family not in _FAMILIES:
            message = f"adaption-prompt works on attention as Llama has it, and {facts.name!r} is of the family {family}"
            raise ModelError(message, hint=f"use a model of {', '.join(_FAMILIES)}, or prefix-tuning, which works on others too")
        if spec.adapter_layers and facts.num_blocks and spec.adapter_layers > facts.num_blocks:
            message = f"adapter_layers is {spec.adapter_layers}, and {facts.name!r} has {facts.num_blocks} blocks"
            raise SpecError(message, hint=f"use at most {facts.num_blocks}")

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds prompts and gates to the attention of the last blocks."""
        from nbtune.methods.adaption import AdaptionConfig
        from nbtune.models.families import blocks

        layers = blocks(base.model)
        prefix = next(key for key, module in base.model.named_modules() if module is layers)
        numbers = range(len(layers) - (spec.adapter_layers or len(layers)), len(layers))
        targets = [f"{prefix}.{number}.self_attn" for number in numbers]
        base.add_adapter(name, AdaptionConfig(target_modules=targets, adapter_len=spec.adapter_len, task_type="CAUSAL_LM"), seed=spec.seed)


METHOD: Final = AdaptionPrompt()
