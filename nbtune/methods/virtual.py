"""Soft prompts as tokens beyond the vocabulary: the embedding layer answers their ids with vectors that are trained.

peft's own prompt tuning puts the vectors in front of a batch that is already embedded, so that logits are longer than the input, and
packing, prefix caches and generation need a path of their own. As ids they are tokens like others, and every path is the one there is.
The tuner is peft's kind of tuner all the same: peft saves, opens and switches it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from nbtune.methods.bottleneck import OwnTuner, made_known

__all__ = ["VirtualConfig", "VirtualEmbedding", "VirtualModel"]

NAME = "virtual"


@dataclass
class VirtualConfig(PeftConfig):
    """`num_virtual_tokens` vectors, which begin as the embeddings of `initial_ids` (repeated) or, without any, at random.

    `target_modules` names the embedding layer; `vocabulary` is the first id beyond it. With `encoder_hidden_size` the vectors go through
    a network of three layers first (P-tuning).
    """

    target_modules: list[str] | None = None
    num_virtual_tokens: int = 20
    vocabulary: int = 0
    initial_ids: list[int] | None = None
    encoder_hidden_size: int | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    exclude_modules: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = made_known(NAME, VirtualConfig, VirtualModel)


class VirtualEmbedding(nn.Module, BaseTunerLayer):
    """Ids from `vocabulary` on are answered with the active adapter's vectors, the rest by the base's embeddings."""

    adapter_layer_names = ("virtual_tokens", "virtual_first", "virtual_second", "virtual_third")
    other_param_names = ("virtual_config",)

    def __init__(self, base_layer: nn.Embedding, adapter_name: str, config: VirtualConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.virtual_tokens = nn.ParameterDict()
        self.virtual_first, self.virtual_second, self.virtual_third = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.virtual_config: dict[str, VirtualConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: VirtualConfig) -> None:
        """Adds the vectors of one adapter."""
        weight = self.base_layer.weight
        count, size = config.num_virtual_tokens, self.base_layer.embedding_dim
        if config.initial_ids and weight.device.type != "meta":
            ids = [config.initial_ids[place % len(config.initial_ids)] for place in range(count)]
            first = weight.detach()[torch.tensor(ids, device=weight.device)].float()
        else:
            spread = 1.0 if weight.device.type == "meta" else float(weight.detach().float().std())
            first = spread * torch.randn(count, size)
        self.virtual_config[adapter_name] = config
        self.virtual_tokens[adapter_name] = nn.Parameter(first.to(weight.device))
        if config.encoder_hidden_size is not None:
            inner = config.encoder_hidden_size
            self.virtual_first[adapter_name] = nn.Linear(size, inner).to(weight.device)
            self.virtual_second[adapter_name] = nn.Linear(inner, inner).to(weight.device)
            self.virtual_third[adapter_name] = nn.Linear(inner, size).to(weight.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [..., hidden] of ids [...]."""
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.virtual_tokens]
        if not names:
            return self.base_layer(ids)  # type: ignore[no-any-return]
        vocabulary = self.virtual_config[names[-1]].vocabulary
        virtual = ids >= vocabulary
        out = self.base_layer(ids.clamp(max=vocabulary - 1))
        vectors = functional.embedding((ids - vocabulary).clamp(min=0), self._vectors(names[-1]))
        return torch.where(virtual[..., None], vectors.to(out.dtype), out)

    def _vectors(self, name: str) -> torch.Tensor:
        tokens: torch.Tensor = self.virtual_tokens[name]
        if name not in self.virtual_first:
            return tokens
        inner = functional.relu(self.virtual_second[name](functional.relu(self.virtual_first[name](tokens))))
        return tokens + self.virtual_third[name](inner)  # type: ignore[no-any-return]


class VirtualModel(OwnTuner):
    """Puts the vectors on the embedding layer."""

    prefix: str = f"{NAME}_"
    tuner_layer_cls = VirtualEmbedding

    def _check_merge_allowed(self) -> None:
        raise ValueError("a soft prompt is tokens of its own in front of a text: there is no weight that it could be merged into")
