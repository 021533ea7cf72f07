"""The forward of a LoRA layer in as few operations as it has matrix products: W x + scaling B A x.

peft casts the layer's input to the adapter's float32, from which autocast casts it back, then scales and adds in passes of their own, and
autograd adds the two parts of the input's gradient in one more. Here the products add to what is there: half of the operations, the same
formula. Weights, names and files are peft's, and so is the forward wherever a layer is not this plain.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["lean"]


def lean(model: nn.Module) -> None:
    """Gives the plain LoRA layers in `model` that forward; a layer that has it keeps it."""
    from peft.tuners.lora import Linear

    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = _lean_linear()


@cache
def _lean_linear() -> Any:
    from peft.tuners.lora import Linear

    class LeanLinear(Linear):
        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            name = None if args or kwargs else _plain(self, x)
            if name is None:
                return super().forward(x, *args, **kwargs)
            base = self.base_layer
            return _product()(x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])

    return LeanLinear


def _plain(layer: Any, x: torch.Tensor) -> str | None:
    """The one adapter that is active on the layer, where nothing but the formula above is asked of it."""
    import torch

    names = [] if layer.disable_adapters or layer.merged else [name for name in layer.active_adapters if name in layer.lora_A]
    if len(names) != 1:
        return None
    name, base = names[0], layer.base_layer
    if name in layer.lora_variant or layer.lora_bias[name] or _drops(layer.lora_dropout[name]) or not _is_frozen_linear(base):
        return None
    kind = x.device.type
    computing = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return name if base.weight.dtype == computing and x.is_floating_point() else None


def _drops(dropout: nn.Module) -> bool:
    from torch import nn

    return dropout.training and not isinstance(dropout, nn.Identity)


def _is_frozen_linear(base: Any) -> bool:
    """Whether calling it would be one product with weights that are not trained: no kin of a linear layer, nothing hooked on."""
    from torch import nn

    own = vars(base)
    if type(base) is not nn.Linear or own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own:
        return False
    return not any(parameter.requires_grad for parameter in base.parameters())


@cache
def _product() -> Any:
    import torch
    from torch.nn import functional

    class Product(torch.autograd.Function):
        """W x + bias + scaling B A x in the dtype of W, which is frozen; A [r, in] and B [out, r] may be of another."""

        @staticmethod
        def forward(  # noqa: PLR0917  autograd hands them over by position
            ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scaling: float
        ) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            low, high = a.to(weight.dtype), b.to(weight.dtype)
            inner = rows @ low.t()
            out = functional.linear(rows, weight, bias).addmm_(inner, high.t(), alpha=scaling)
            ctx.save_for_backward(rows, weight, low, high, inner)
            ctx.scaling, ctx.shape, ctx.kinds = scaling, x.shape, (x.dtype, a.dtype, b.dtype)
            return out.view(*x.shape[:-1], out.shape[-1])

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            rows, weight, low, high, inner = ctx.saved_tensors
            grad = grads[0].reshape(-1, grads[0].shape[-1])
            down, of_b = grad @ high, inner.t() @ grad
            if ctx.scaling != 1:
                down, of_b = down.mul_(ctx.scaling), of_b.mul_(ctx.scaling)
            of_a = (down.t() @ rows).to(ctx.kinds[1])
            of_b = of_b.t().to(ctx.kinds[2], memory_format=torch.contiguous_format)  # else whoever accumulates it copies it
            of_x = None
            if ctx.needs_input_grad[0]:
                of_x = (grad @ weight).addmm_(down, low).view(ctx.shape).to(ctx.kinds[0])
            return of_x, None, None, of_a, of_b, None

    return Product.apply
