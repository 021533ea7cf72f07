"""The objectives that there are: what the loss is. One file and one line here each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from nbtune.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch

__all__ = ["Objective", "get", "names"]

_BUILT_IN: Final = ("sft",)


class Objective(Protocol):
    """What the loss of a batch is."""

    name: str

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """The loss summed over what is weighed (a 0-d tensor, float32), and the weight, so that a step normalises over all of it."""


def names() -> tuple[str, ...]:
    """Every objective's name."""
    return _BUILT_IN


def get(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in _BUILT_IN:
        raise SpecError(f"there is no objective {name!r}", hint=did_you_mean(name, _BUILT_IN))
    return cast("Objective", importlib.import_module(f"nbtune.objectives.{name}").OBJECTIVE)
