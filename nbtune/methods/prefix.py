"""Prefixes as a tuner of peft's kind: trained keys and values of every block, at the places of tokens beyond the vocabulary.

peft's own prefix tuning hands keys and values over as a cache that is there already: it knows no packing, no generation without a cache and
no checkpointing. Here the prefix has places of its own in the sequence, and each block's projections answer there with what is trained: to
attention these are keys and values like others, so every path is the one there is. The places go through the blocks with the others; what
becomes of them is read by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from nbtune.methods.bottleneck import OwnTuner, layer_of, made_known

__all__ = ["PrefixConfig", "PrefixEmbedding", "PrefixLayer", "PrefixModel", "folded"]

NAME = "prefix_values"
Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class PrefixConfig(PeftConfig):
    """`target_modules` are the embedding layer and the projections that give keys and values; `vocabulary` is the first id beyond it.

    Args:
        target_modules: full names; peft may shorten what they have in common.
        projections: full names of the projections alone, in the order of the blocks.
        num_virtual_tokens: places of the prefix.
        vocabulary: ids from here on are the prefix's.
        columns: of each projection's output those that are keys or values, as [first, behind the last] pairs; None: all.
        encoder_hidden_size: keys and values come out of a network of two layers of this width (`prefix_projection`); None: they are
            trained themselves.
        sizes: how many columns each projection has.
        layers_to_transform: of peft's; unused.
        layers_pattern: likewise.
        exclude_modules: likewise.
        modules_to_save: of peft's; a new head.
    """

    target_modules: list[str] | None = None
    projections: list[str] | None = None
    num_virtual_tokens: int = 20
    vocabulary: int = 0
    columns: list[list[int]] | None = None
    encoder_hidden_size: int | None = None
    sizes: list[int] | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    exclude_modules: list[str] | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = made_known(NAME, PrefixConfig, PrefixModel)


class _Places:
    """Where the prefix is in the batch that goes through the model now: told by the embedding layer, asked by the projections."""

    def __init__(self) -> None:
        self.numbers: torch.Tensor | None = None  # int64 [..., T], which of the prefix's tokens; elsewhere any
        self.here: torch.Tensor | None = None  # bool [..., T, 1]
        self.values: dict[int, torch.Tensor] = {}  # by the projection's place, where a network makes them


class PrefixEmbedding(nn.Module, BaseTunerLayer):
    """The embedding layer, which sees where the prefix is; with `encoder_hidden_size` it also has the network."""

    adapter_layer_names = ("prefix_values_tokens", "prefix_values_first", "prefix_values_second")
    other_param_names = ("prefix_config",)

    def __init__(self, base_layer: nn.Embedding, adapter_name: str, config: PrefixConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.places = _Places()
        self.prefix_values_tokens = nn.ParameterDict()
        self.prefix_values_first, self.prefix_values_second = nn.ModuleDict(), nn.ModuleDict()
        self.prefix_config: dict[str, PrefixConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: PrefixConfig) -> None:
        """Adds what one adapter has here."""
        self.prefix_config[adapter_name] = config
        if config.encoder_hidden_size is not None:
            size, inner, device = self.base_layer.embedding_dim, config.encoder_hidden_size, self.base_layer.weight.device
            self.prefix_values_tokens[adapter_name] = nn.Parameter(torch.randn(config.num_virtual_tokens, size).to(device))
            self.prefix_values_first[adapter_name] = nn.Linear(size, inner).to(device)
            self.prefix_values_second[adapter_name] = nn.Linear(inner, sum(config.sizes or [])).to(device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings [..., hidden] of ids [...]; at the prefix's places those of any token."""
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.prefix_config]
        self.places.here = self.places.numbers = None
        if not names:
            return self.base_layer(ids)  # type: ignore[no-any-return]
        config = self.prefix_config[names[-1]]
        self.places.here = (ids >= config.vocabulary)[..., None]
        self.places.numbers = (ids - config.vocabulary).clamp(min=0)
        if names[-1] in self.prefix_values_tokens:
            parts: Any = (self.prefix_values_tokens, self.prefix_values_first, self.prefix_values_second)
            tokens, first, second = (part[names[-1]] for part in parts)
            self.places.values = dict(enumerate(_made(tokens, first, second, config.sizes or [])))
        return self.base_layer(ids.clamp(max=config.vocabulary - 1))  # type: ignore[no-any-return]


class PrefixLayer(nn.Module, BaseTunerLayer):
    """A projection whose keys or values at the prefix's places are those of the active adapter."""

    adapter_layer_names = ("prefix_values_own",)
    other_param_names = ("prefix_config",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: PrefixConfig, place: int, places: _Places) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.place, self.places = place, places
        self.prefix_values_own = nn.ParameterDict()
        self.prefix_config: dict[str, PrefixConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: PrefixConfig) -> None:
        """Adds the values of one adapter."""
        self.prefix_config[adapter_name] = config
        if config.encoder_hidden_size is None:
            size = (config.sizes or [])[self.place]
            like = next(self.base_layer.parameters())
            self.prefix_values_own[adapter_name] = nn.Parameter(torch.randn(config.num_virtual_tokens, size).to(like.device))
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The projection's output [..., features]."""
        out: torch.Tensor = self.base_layer(x, *args, **kwargs)
        names = [] if self.disable_adapters else [name for name in self.active_adapters if name in self.prefix_config]
        here, numbers = self.places.here, self.places.numbers
        if not names or here is None or numbers is None:
            return out
        name = names[-1]
        own = self.prefix_values_own[name] if name in self.prefix_values_own else self.places.values[self.place]
        there = functional.embedding(numbers, own).to(out.dtype)
        pairs = self.prefix_config[name].columns
        if pairs is None:
            return torch.where(here, there, out)
        parts, at, used = [], 0, 0
        for begin, end in pairs:
            parts += [out[..., at:begin], torch.where(here, there[..., used : used + end - begin], out[..., begin:end])]
            at, used = end, used + end - begin
        return torch.cat([*parts, out[..., at:]], -1)


class PrefixModel(OwnTuner):
    """Puts both kinds of layers on."""

    prefix: str = f"{NAME}_"
    tuner_layer_cls = (PrefixEmbedding, PrefixLayer)

    def _layer_for(self, target: nn.Module, adapter_name: str, config: Any, key: str) -> nn.Module:
        if isinstance(target, nn.Embedding):
            return PrefixEmbedding(target, adapter_name, config)
        embedding = next(module for module in self.model.modules() if isinstance(module, PrefixEmbedding))
        return PrefixLayer(target, adapter_name, config, config.projections.index(key), embedding.places)

    def _check_merge_allowed(self) -> None:
        raise ValueError("a prefix is keys and values of its own in front of a text: there is no weight that it could be merged into")


def folded(tensors: Mapping[str, torch.Tensor], projections: Sequence[str], sizes: Sequence[int]) -> dict[str, torch.Tensor]:
    """The keys and values [virtual tokens, size] of each projection that the network makes, in the network's place."""
    tokens = next(value for key, value in tensors.items() if key.endswith(f".{NAME}_tokens"))
    made = _made(tokens, layer_of(tensors, f".{NAME}_first."), layer_of(tensors, f".{NAME}_second."), sizes)
    own = {f"base_model.model.{name}.{NAME}_own": part.contiguous() for name, part in zip(projections, made, strict=True)}
    return {**{key: value for key, value in tensors.items() if f".{NAME}_" not in key}, **own}


def _made(tokens: torch.Tensor, first: Layer, second: Layer, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """What the network of `prefix_projection` gives for each projection."""
    return torch.split(second(torch.tanh(first(tokens))), list(sizes), -1)
