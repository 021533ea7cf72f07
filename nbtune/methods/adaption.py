"""Adaption prompts as a tuner of ours: peft's own keeps one adapter's weights under no name of theirs and swaps whole modules.

So two runs could not be trained beside each other on one base, nor could a run's weights be told from the base's. The formula and the
names of the weights are peft's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.models.llama.modeling_llama import rotate_half

from nbtune.methods.bottleneck import OwnTuner, made_known

__all__ = ["AdaptionConfig", "AdaptionLayer", "AdaptionModel"]

NAME = "adaption"


@dataclass
class AdaptionConfig(PeftConfig):
    """`target_modules` are the attention modules, by full names, that also attend to `adapter_len` vectors of their own."""

    target_modules: list[str] | None = None
    adapter_len: int = 10
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    exclude_modules: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = made_known(NAME, AdaptionConfig, AdaptionModel)


class AdaptionLayer(nn.Module, BaseTunerLayer):
    """An attention module, plus tanh(gate) times what the same queries find in the keys and values of a trained prompt.

    The gate of each head starts at zero, so that training starts from the model as it is.
    """

    adapter_layer_names = ("adaption_prompt", "adaption_gate")
    other_param_names = ("adaption_config",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: AdaptionConfig) -> None:
        super().__init__()
        self.base_layer: Any = base_layer
        self.adaption_prompt, self.adaption_gate = nn.ParameterDict(), nn.ParameterDict()
        self.adaption_config: dict[str, AdaptionConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: AdaptionConfig) -> None:
        """Adds the prompt [adapter_len, hidden] and the gates [heads] of one adapter."""
        sizes, device = self.base_layer.config, next(self.base_layer.parameters()).device
        self.adaption_config[adapter_name] = config
        self.adaption_prompt[adapter_name] = nn.Parameter(torch.randn(config.adapter_len, sizes.hidden_size).to(device))
        self.adaption_gate[adapter_name] = nn.Parameter(torch.zeros(sizes.num_attention_heads, device=device))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, hidden_states: torch.Tensor, *args: Any, position_embeddings: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """The attention's output [rows, tokens, hidden] and weights, as a Llama's block asks for them."""
        out, weights = self.base_layer(hidden_states, *args, position_embeddings=position_embeddings, **kwargs)
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.adaption_prompt]
        if names:
            queries = self._queries(hidden_states, *position_embeddings)
            for name in names:
                out = out + self._found(name, queries).to(out.dtype)
        return out, weights

    def _queries(self, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """The base's own queries [rows, heads, tokens, width], turned to their positions; it does not hand them out."""
        queries = self._heads(self.base_layer.q_proj(states), "q_norm")
        turned: torch.Tensor = rotate_half(queries)
        return queries * cos[:, None] + turned * sin[:, None]

    def _heads(self, projected: torch.Tensor, norm: str = "") -> torch.Tensor:
        """[..., tokens, heads * width] as [..., heads, tokens, width], through the norm of the heads where the family has one."""
        apart = projected.unflatten(-1, (-1, self.base_layer.head_dim))
        return getattr(self.base_layer, norm, nn.Identity())(apart).transpose(-3, -2)  # type: ignore[no-any-return]

    def _found(self, name: str, queries: torch.Tensor) -> torch.Tensor:
        """What the queries find in the prompt, which stands at no position, through the base's output projection."""
        attention, prompt = self.base_layer, self.adaption_prompt[name].to(queries.dtype)
        keys, values = self._heads(attention.k_proj(prompt), "k_norm"), self._heads(attention.v_proj(prompt))
        keys, values = (part.repeat_interleave(attention.num_key_value_groups, dim=0) for part in (keys, values))
        scores = queries @ keys.to(queries.dtype).transpose(-2, -1) * attention.scaling
        gate = torch.tanh(self.adaption_gate[name])[:, None, None]
        found = (gate * scores.softmax(-1, dtype=torch.float32)).to(values.dtype) @ values
        bias = attention.o_proj.bias
        added: torch.Tensor = attention.o_proj(found.transpose(1, 2).flatten(-2))
        return added if bias is None else added - bias


class AdaptionModel(OwnTuner):
    """Puts the prompts on."""

    prefix: str = f"{NAME}_"
    tuner_layer_cls = AdaptionLayer

    def _check_merge_allowed(self) -> None:
        raise ValueError("an adaption prompt is keys and values of its own: there is no weight that it could be merged into")
