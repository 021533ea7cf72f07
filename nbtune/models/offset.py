"""LoRA that is counted from where it began: W x + s (B A - B0 A0) x, with B0 and A0 as they were at the start.

PiSSA and OLoRA begin at factors whose product is not zero. peft takes that product out of the base's weights, so that each run needs a base
of its own, and no other adapter can be put on that one. Here it is taken out of the adapter's output: the function, its gradients and its
course are the same, and the base stays as it is. The file is plain LoRA of twice the rank, [B, -B0] [A; A0], which is also what peft
converts such adapters to (https://huggingface.co/docs/peft/developer_guides/lora#pissa).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from peft import PeftConfig

__all__ = ["begin_at", "narrowed", "widened"]

_KEY = "base_model.model.{}.lora_{}.weight"
"""How peft's files call a factor of a layer."""
_HELD = "lora_offset"
"""Where a layer holds the offsets of its adapters."""


class Offset(nn.Module):
    """What peft calls a variant of a LoRA layer: it is asked in place of the plain product. A0 [r, in], B0 [out, r]."""

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)

    def forward(self, module: Any, *, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_: Any) -> torch.Tensor:
        """The base's output with what was learnt; at the start exactly the base's, since equal terms are taken from each other first."""
        low, high = module.lora_A[active_adapter], module.lora_B[active_adapter]
        began = functional.linear(functional.linear(x, self.a), self.b)
        learnt: torch.Tensor = high(low(module.lora_dropout[active_adapter](x)))
        scaling: float = module.scaling[active_adapter]
        return result + (learnt - began) * scaling

    def merge_safe(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """The weight with what was learnt."""
        return orig_weight + self._change(module, active_adapter).to(orig_weight.dtype)

    def merge_unsafe(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> None:
        """The same in place."""
        orig_weight.data += self._change(module, active_adapter).to(orig_weight.dtype)

    def unmerge(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """The weight without it."""
        return orig_weight - self._change(module, active_adapter).to(orig_weight.dtype)

    def _change(self, module: Any, name: str) -> torch.Tensor:
        change: torch.Tensor = (module.lora_B[name].weight @ module.lora_A[name].weight - self.b @ self.a) * module.scaling[name]
        return change.T if module.fan_in_fan_out else change


def begin_at(layer: Any, name: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Has the adapter `name` of a LoRA layer begin at A [r, in] and B [out, r], and be counted from there."""
    low, high = layer.lora_A[name].weight, layer.lora_B[name].weight
    low.data, high.data = a.to(low).contiguous(), b.to(high).contiguous()
    if not hasattr(layer, _HELD):
        setattr(layer, _HELD, nn.ModuleDict())
        layer.other_param_names = (*layer.other_param_names, _HELD)  # peft forgets it with the adapter
    held = getattr(layer, _HELD)
    held[name] = layer.lora_variant[name] = Offset(low.detach().clone(), high.detach().clone())


def widened(model: nn.Module, name: str, state: dict[str, torch.Tensor], config: PeftConfig) -> tuple[dict[str, torch.Tensor], PeftConfig]:
    """What peft writes of an adapter, as the plain LoRA that it comes to; as it is, where it began at the base."""
    places = dict(_offsets(model, name))
    if not places:
        return state, config
    wide = dict(state)
    for key, offset in places.items():
        low, high = _KEY.format(key, "A"), _KEY.format(key, "B")
        wide[low], wide[high] = torch.cat([state[low], offset.a]), torch.cat([state[high], -offset.b], dim=1)
    plain: Any = copy.copy(config)
    plain.r, plain.lora_alpha = 2 * plain.r, plain.lora_alpha * (2**0.5 if plain.use_rslora else 2)
    plain.init_lora_weights = True
    return wide, plain


def narrowed(model: nn.Module, name: str, wide: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The other way: what was learnt; and where it began is put back into the layers."""
    state = dict(wide)
    for key, offset in _offsets(model, name):
        low, high = _KEY.format(key, "A"), _KEY.format(key, "B")
        rank = len(offset.a)
        offset.a, offset.b = wide[low][rank:].to(offset.a), -wide[high][:, rank:].to(offset.b)
        state[low], state[high] = wide[low][:rank], wide[high][:, :rank]
    return state


def _offsets(model: nn.Module, name: str) -> Iterator[tuple[str, Offset]]:
    """The layers of the adapter by their names."""
    for key, module in model.named_modules():
        found = getattr(module, "lora_variant", {}).get(name)
        if isinstance(found, Offset):
            yield key, found
