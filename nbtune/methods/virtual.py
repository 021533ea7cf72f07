"""Soft prompts as tokens beyond the vocabulary: the embedding layer answers their ids with vectors that are trained.

peft's own prompt tuning puts the vectors in front of a batch that is already embedded, so that logits are longer than the input, and
packing, prefix caches and generation need a path of their own. As ids they are tokens like others, and every path is the one there is.
The tuner is peft's kind of tuner all the same: peft saves, opens and switches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from peft import PeftConfig
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn import functional

from nbtune.methods.bottleneck import OwnTuner, layer_of, made_known

__all__ = ["VirtualConfig", "VirtualEmbedding", "VirtualModel", "folded"]

NAME = "virtual"
_LEAST: Final = 1e-30
Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class VirtualConfig(PeftConfig):
    """`num_virtual_tokens` vectors, which begin as the embeddings of `initial_ids` (repeated) or, without any, at random.

    `target_modules` names the embedding layer; `vocabulary` is the first id beyond it. With `encoder_hidden_size` the vectors go through
    a network of three layers first (P-tuning). With `projection_epsilon` what is trained is added to the embeddings of ids, each sum within
    that distance of its embedding (CPT). With `num_tasks` there are as many vectors more for each task: the same ones, each multiplied
    by a number of the task's for its place and, feature by feature, by a vector of the task's; the first ones answer as the tasks' mean.
    """

    target_modules: list[str] | None = None
    num_virtual_tokens: int = 20
    vocabulary: int = 0
    initial_ids: list[int] | None = None
    encoder_hidden_size: int | None = None
    projection_epsilon: float | None = None
    num_tasks: int | None = None
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    exclude_modules: list[str] | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = made_known(NAME, VirtualConfig, VirtualModel)


class VirtualEmbedding(nn.Module, BaseTunerLayer):
    """Ids from `vocabulary` on are answered with the active adapter's vectors, the rest by the base's embeddings.

    Of an adapter with `projection_epsilon`, `virtual_ids` are the tokens that its vectors stay near, and `virtual_bounds` how near.
    """

    adapter_layer_names = ("virtual_tokens", "virtual_first", "virtual_second", "virtual_third", "virtual_places", "virtual_features")
    other_param_names = ("virtual_config", "virtual_ids", "virtual_bounds")

    def __init__(self, base_layer: nn.Embedding, adapter_name: str, config: VirtualConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.virtual_tokens = nn.ParameterDict()
        self.virtual_places, self.virtual_features = nn.ParameterDict(), nn.ParameterDict()
        self.virtual_first, self.virtual_second, self.virtual_third = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.virtual_ids, self.virtual_bounds = BufferDict(persistent=True), BufferDict(persistent=True)
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
            with torch.no_grad():  # asked of the layer, which may scale what it holds (BART)
                first = self.base_layer(torch.tensor(ids, device=weight.device)).float()
        else:
            spread = 1.0 if weight.device.type == "meta" else float(weight.detach().float().std())
            first = spread * torch.randn(count, size)
        if config.projection_epsilon is not None:
            self.near(adapter_name, config.initial_ids or [0] * count, [config.projection_epsilon] * count)
            first = torch.zeros_like(first)
        self.virtual_config[adapter_name] = config
        self.virtual_tokens[adapter_name] = nn.Parameter(first.to(weight.device))
        if config.num_tasks is not None:
            self.virtual_places[adapter_name] = nn.Parameter(torch.ones(config.num_tasks, count, device=weight.device))
            self.virtual_features[adapter_name] = nn.Parameter(torch.ones(config.num_tasks, size, device=weight.device))
        if config.encoder_hidden_size is not None:
            inner = config.encoder_hidden_size
            self.virtual_first[adapter_name] = nn.Linear(size, inner).to(weight.device)
            self.virtual_second[adapter_name] = nn.Linear(inner, inner).to(weight.device)
            self.virtual_third[adapter_name] = nn.Linear(inner, size).to(weight.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def near(self, adapter_name: str, ids: Sequence[int], bounds: Sequence[float]) -> None:
        """Has each vector stay within a distance of the embedding of a token; within 0 it is that."""
        device = self.base_layer.weight.device
        self.virtual_ids[adapter_name] = torch.tensor(ids, device=device)
        self.virtual_bounds[adapter_name] = torch.tensor(bounds, device=device)

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
        if name in self.virtual_ids:
            return self._near(name, tokens)
        if name in self.virtual_places:
            return _of_each(tokens, self.virtual_places[name], self.virtual_features[name])
        if name not in self.virtual_first:
            return tokens
        return _through(tokens, self.virtual_first[name], self.virtual_second[name], self.virtual_third[name])

    def _near(self, name: str, away: torch.Tensor) -> torch.Tensor:
        """Embeddings plus what is `away` from them, which a training has brought within its bounds first (projected gradient descent)."""
        bounds: torch.Tensor = self.virtual_bounds[name]
        scale = (bounds / torch.maximum(away.detach().norm(dim=1), bounds).clamp(min=_LEAST))[:, None]
        if self.training:
            with torch.no_grad():
                away.mul_(scale)
            scale = (bounds > 0)[:, None]
        begun: torch.Tensor = self.base_layer.weight.detach()[self.virtual_ids[name]].float()
        return begun + away * scale


def _of_each(tokens: torch.Tensor, places: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """[(1 + tasks) * virtual tokens, hidden]: the mean over the tasks, then each task's."""
    each = tokens * places[:, :, None] * features[:, None, :]
    mean = each.mean(0, keepdim=True) if len(each) else tokens[None]
    return torch.cat([mean, each]).flatten(0, 1)


def folded(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The vectors [virtual tokens, hidden] that the network makes, in the place of what goes into it and of the network."""
    first, second, third = (layer_of(tensors, f".virtual_{part}.") for part in ("first", "second", "third"))
    kept = {key: value for key, value in tensors.items() if not any(f".virtual_{part}." in key for part in ("first", "second", "third"))}
    tokens = next(key for key in kept if key.endswith(".virtual_tokens"))
    return {**kept, tokens: _through(kept[tokens], first, second, third)}


def _through(tokens: torch.Tensor, first: Layer, second: Layer, third: Layer) -> torch.Tensor:
    """P-tuning's network, which adds to what goes into it."""
    return tokens + third(functional.relu(second(functional.relu(first(tokens)))))


class VirtualModel(OwnTuner):
    """Puts the vectors on the embedding layer."""

    prefix: str = f"{NAME}_"
    tuner_layer_cls = VirtualEmbedding

    def _check_merge_allowed(self) -> None:
        raise ValueError("a soft prompt is tokens of its own in front of a text: there is no weight that it could be merged into")
