"""The objectives that there are: one file and one line here each; other packages register theirs as `nbtune.objectives`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from nbtune.registry import Registry

if TYPE_CHECKING:
    import torch

    from nbtune.data.batches import Batch

__all__ = ["Objective", "get"]


class Objective(Protocol):
    """What the loss of a batch is."""

    name: str

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
        """The loss summed over what is weighed (a 0-d tensor, float32), and the weight, so that a step normalises over all of it."""


_OBJECTIVES: Final = Registry[Objective]("objective", "nbtune.objectives", {"sft": "sft"}, "OBJECTIVE")


def get(name: str) -> Objective:
    """The objective called `name`.

    Raises:
        SpecError: there is none of that name.
    """
    return _OBJECTIVES.get(name)
