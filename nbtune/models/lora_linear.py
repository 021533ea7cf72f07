"""A LoRA layer's forward and backward in one piece, in place of peft's while a plain LoRA is trained.

peft casts the input to float32 (which autocast casts back), keeps that copy for the backward, and scales and adds in passes of their
own. Here y = x W' + s (x A') B' is one product and two thin ones that add into their results, and x is kept once. Equal to peft's
within rounding; whatever is not plain (DoRA, dropout, quantized bases, several adapters) stays peft's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["plain_lora"]


@contextmanager
def plain_lora(model: nn.Module, adapter: str) -> Iterator[int]:
    """Inside it, the model's plain LoRA layers with `adapter` active run in one piece; gives how many there are."""
    import sys

    if "peft" not in sys.modules:  # then no layer can be one of peft's
        yield 0
        return
    layers = [layer for layer in _lora_layers(model) if _is_plain(layer, adapter)]
    for layer in layers:
        layer.__dict__["forward"] = partial(_forward, layer, adapter)  # nn.Module's own setting costs milliseconds a step
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora import Linear

    return [module for module in model.modules() if type(module) is Linear]


def _is_plain(layer: Any, adapter: str) -> bool:
    import torch

    base = layer.base_layer
    return (
        adapter in layer.lora_A
        and list(layer.active_adapters) == [adapter]
        and not layer.disable_adapters
        and not layer.merged
        and adapter not in layer.lora_variant
        and type(layer.lora_dropout[adapter]) is torch.nn.Identity
        and type(base) is torch.nn.Linear
        and not base.weight.requires_grad
        and "forward" not in layer.__dict__
        and not (layer._forward_hooks or layer._forward_pre_hooks or base._forward_hooks or base._forward_pre_hooks)  # noqa: SLF001
        and layer.lora_A[adapter].bias is None
        and layer.lora_B[adapter].bias is None
    )


def _forward(layer: Any, adapter: str, x: torch.Tensor) -> torch.Tensor:
    import torch

    base = layer.base_layer
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else base.weight.dtype
    flat = x.reshape(-1, x.shape[-1]).to(dtype)
    bias = None if base.bias is None else base.bias.to(dtype)
    factors = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    y: torch.Tensor = _function()(flat, base.weight.to(dtype), bias, *factors, layer.scaling[adapter])
    return y.view(*x.shape[:-1], y.shape[-1])


@cache
def _function() -> Any:
    import torch
    from torch.nn import functional

    class LoraLinear(torch.autograd.Function):
        """x [T, in], W [out, in], A [r, in] and B [out, r] in their own dtype; gives [T, out] in x's."""

        @staticmethod
        def forward(  # noqa: PLR0917  autograd gives them by place
            ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float
        ) -> torch.Tensor:
            down, up = a.to(x.dtype), b.to(x.dtype)
            y = functional.linear(x, weight, bias)
            low = x @ down.t()
            y.addmm_(low, up.t(), alpha=scale)
            ctx.save_for_backward(x, weight, low, down, up)
            ctx.scale, ctx.dtypes = scale, (a.dtype, b.dtype)
            return y

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            grad = grads[0]
            x, weight, low, down, up = ctx.saved_tensors
            back = (grad @ up).mul_(ctx.scale)
            of_x = torch.mm(grad, weight).addmm_(back, down) if ctx.needs_input_grad[0] else None
            of_a = (back.t() @ x).to(ctx.dtypes[0])
            of_b = (grad.t() @ low).to(ctx.dtypes[1]).mul_(ctx.scale)
            return of_x, None, None, of_a, of_b, None

    return LoraLinear.apply
