"""Stand-ins for bitsandbytes' layers on fake tensors: the same buffers in forward and backward, no kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbtune.models.families import head

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["quantize", "quantized_layers"]


def quantized_layers(model: Any) -> list[nn.Linear]:
    """What is held in 4 or 8 bits: the frozen linear layers, without the head, what a family keeps whole (T5), and what adapters add."""
    from torch import nn

    left = set(head(model).modules())
    whole = tuple(f".{name}." for name in getattr(model, "_keep_in_fp32_modules", None) or ())
    plain = [item for name, item in model.named_modules() if type(item) is nn.Linear and not f".{name}.".endswith(whole)]
    return [item for item in plain if item not in left and not item.weight.requires_grad]


def quantize(model: Any, form: str) -> None:
    """Puts a stand-in in the place of each such layer; it has no weight."""
    found = set(quantized_layers(model))
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child in found:
                setattr(module, name, _stand_in(child, form))


def _stand_in(layer: nn.Linear, form: str) -> nn.Module:
    """A layer that makes its weights anew in the input's dtype for each product, forward and backward, and throws them away.

    int8 also holds its input until the whole backward is over, as an attribute of its autograd context.
    """
    import torch
    from torch import nn

    shape = layer.weight.shape

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.x = x if form == "int8" else None
            return nn.functional.linear(x, torch.empty(shape, dtype=x.dtype, device=x.device))

        @staticmethod
        def backward(_ctx: Any, grad: torch.Tensor) -> Any:
            return grad @ torch.empty(shape, dtype=grad.dtype, device=grad.device)

    class StandIn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias: nn.Parameter | None = layer.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = Product.apply(x)  # type: ignore[no-untyped-call]
            return out if self.bias is None else out + self.bias

    return StandIn()
