"""The tuner that peft lacks: small two-layer networks after (or beside) the parts of each block, as a peft tuner.

It is imported where an adapter is put on, since peft and torch come with it; from then on peft saves, opens, switches and removes it like
its own. One such configuration has to have been made before peft opens an adapter's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN

__all__ = ["BottleneckConfig", "BottleneckLayer", "BottleneckModel", "OwnTuner", "layer_of", "made_known"]

NAME = "bottleneck"


@dataclass
class BottleneckConfig(PeftConfig):
    """`target_modules` are those after which a network stands, or, with `parallel`, beside which.

    Args:
        target_modules: names of modules whose output has `hidden_size` features.
        hidden_size: features of the model's hidden states.
        bottleneck_size: those of the network's inner layer.
        non_linearity: between its layers, by transformers' name.
        scaling: its output is multiplied by this.
        parallel: it reads what the module reads, not what the module gives.
        layers_to_transform: numbers of the blocks that get one; None: all.
        layers_pattern: of peft's; unused.
        exclude_modules: of peft's; the layer of `modules_to_save`.
        modules_to_save: of peft's; a new head.
    """

    target_modules: list[str] | None = None
    hidden_size: int = 0
    bottleneck_size: int = 64
    non_linearity: str = "relu"
    scaling: float = 1.0
    parallel: bool = False
    layers_to_transform: list[int] | None = None
    layers_pattern: str | None = None
    exclude_modules: list[str] | None = field(default=None)
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = made_known(NAME, BottleneckConfig, BottleneckModel)
        self.target_modules = sorted(self.target_modules) if self.target_modules else self.target_modules


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """h + scaling (U f(D h + b) + c), of the module's output h, or of its input where the network is parallel; U and c start at zero."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_config",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down, self.bottleneck_up = nn.ModuleDict(), nn.ModuleDict()
        self.bottleneck_config: dict[str, BottleneckConfig] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Adds the network of one adapter."""
        self.bottleneck_config[adapter_name] = config
        self.bottleneck_down[adapter_name] = nn.Linear(config.hidden_size, config.bottleneck_size)
        self.bottleneck_up[adapter_name] = up = nn.Linear(config.bottleneck_size, config.hidden_size)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        like = next(self.base_layer.parameters(), None)
        if like is not None:
            for module in (self.bottleneck_down[adapter_name], up):
                module.to(like.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The base module's output, adapted."""
        out: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return out
        for name in self.active_adapters:
            if name not in self.bottleneck_down:
                continue
            config, down = self.bottleneck_config[name], self.bottleneck_down[name]
            read = x if config.parallel else out
            if not torch.is_autocast_enabled(read.device.type):
                read = read.to(down.bias.dtype)  # type: ignore[arg-type]
            added = self.bottleneck_up[name](ACT2FN[config.non_linearity](down(read)))
            out = out + (added if config.scaling == 1 else added * config.scaling).to(out.dtype)
        return out


class OwnTuner(BaseTuner):
    """A tuner of ours: its `tuner_layer_cls` takes a module's place, and one adapter after the other."""

    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  peft declares it so
    tuner_layer_cls: Any

    def _create_and_replace(  # noqa: PLR0917  peft's order
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        new = self._layer_for(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            new.requires_grad_(False)
        self._replace_module(parent, target_name, new, target)

    def _layer_for(self, target: nn.Module, adapter_name: str, config: Any, _key: str) -> nn.Module:
        """The layer that takes the place of `target`, which is called so in the model."""
        made: nn.Module = self.tuner_layer_cls(target, adapter_name, config)
        return made


class BottleneckModel(OwnTuner):
    """Puts the networks on."""

    prefix: str = f"{NAME}_"
    tuner_layer_cls = BottleneckLayer

    def _check_merge_allowed(self) -> None:
        raise ValueError("a bottleneck adapter is a network of its own between layers: there is no weight that it could be merged into")


def made_known(name: str, config: type[PeftConfig], model: type[BaseTuner]) -> PeftType:
    """Makes a tuner known to peft, once, which looks its tuners up in an enumeration of its own; gives its place there."""
    upper = name.upper()
    if upper not in PeftType.__members__:
        member = str.__new__(PeftType, upper)
        member._name_, member._value_ = upper, upper
        PeftType._member_map_[upper] = member
        PeftType._value2member_map_[upper] = member
        PeftType._member_names_.append(upper)
        register_peft_method(name=name, config_cls=config, model_cls=model)
    return PeftType[upper]


def layer_of(tensors: Mapping[str, torch.Tensor], part: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The linear layer whose weight and bias are under names that hold `part`, of an adapter's tensors by peft's names."""
    weight, bias = (next(value for key, value in tensors.items() if f"{part}{kind}" in key) for kind in ("weight", "bias"))
    return partial(functional.linear, weight=weight, bias=bias)
