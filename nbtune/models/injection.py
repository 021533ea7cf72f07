"""What peft leaves behind where it puts an adapter on: half of one that it refuses, and a tied head of a second set of trained tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["put_on_whole"]


@contextmanager
def put_on_whole(model: nn.Module, name: str) -> Iterator[None]:
    """Inside it the adapter `name` is put on: as a whole, or the model is as it was before the error."""
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    before = [(module, dict(module.named_children())) for module in model.modules()]
    try:
        yield
    except BaseException:
        for module, children in before:
            _put_back(module, children)
        for module in model.modules():
            if isinstance(module, BaseTunerLayer):
                module.delete_adapter(name)
        raise
    # A head that is tied to the embeddings reads their trained tokens, whoever's; with each adapter peft wraps the layer inside it once
    # more, which it then does not know as one.
    for module, children in before:
        if isinstance(module, TrainableTokensLayer):
            _put_back(module, children)


def _put_back(module: nn.Module, children: dict[str, nn.Module]) -> None:
    for key, child in children.items():
        if getattr(module, key) is not child:
            setattr(module, key, child)
