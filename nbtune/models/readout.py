"""Logits only where they are wanted: with a vocabulary of 49k the rest costs most of the time and the memory of a short answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from nbtune.models.families import head

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["readout"]

_WORDS_AT_ONCE: Final = 8192


@contextmanager
def readout(model: nn.Module, at: torch.Tensor, *, exact: bool = False) -> Iterator[None]:
    """Inside it, a forward's `.logits` is [n, vocabulary]: one row for each of `at` (int64 [n]), places in the batch's B * T tokens.

    Places and not a mask, because a device would have to be asked how many of a mask are True, and waited for.

    With `exact` the head multiplies in float32 whatever the base's dtype: bfloat16 logits move by 0.2 between batch sizes, which
    is enough to flip near ties between labels.
    """
    import torch
    from torch.nn import functional

    layer: Any = head(model)  # type: ignore[arg-type]

    def select(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden, *others = args
        return hidden.flatten(0, 1).index_select(0, at.to(hidden.device)), *others

    selecting = layer.register_forward_pre_hook(select, prepend=True)
    plain = exact and type(layer) is torch.nn.Linear
    if plain:
        weights, biases = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()

        def multiply(hidden: torch.Tensor, *_: Any) -> torch.Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                hidden = hidden.float()  # of the head only a part is in float32 at once: all of it would be twice its size again
                logits = torch.cat([functional.linear(hidden, part.float()) for part in weights.split(_WORDS_AT_ONCE)], -1)
                return logits if biases is None else logits.add_(biases.float())

        before = layer.__dict__.get("forward")  # accelerate may have put its own there
        layer.forward = multiply
    try:
        yield
    finally:
        selecting.remove()
        if plain:
            del layer.forward
            if before is not None:
                layer.forward = before
