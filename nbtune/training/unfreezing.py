"""Gradual unfreezing: the topmost block learns first, and block after block below it joins in (ULMFiT).

Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.3: what lies above has settled before what is general is moved. Of
n stages (head, norm and topmost block; each further block; the embeddings, where they are trained), stage i (from 0) begins at step
floor(i s T / n) of T, for a share s of the run. A head that shares the embeddings' matrix learns with them. Weights that do not learn yet
get no gradient: the backward ends above them, and the optimizer passes them over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbtune.training.optimizing import blocks_below

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Unfreezing"]


class Unfreezing:
    """Knows from which step on each parameter learns; without a `share` of the run all do from the first."""

    def __init__(self, trained: Mapping[str, nn.Parameter], share: float | None, total_steps: int) -> None:
        below = blocks_below(trained) if share else {}
        stages = 1 + max(below.values(), default=0)
        begins = {name: int(stage * (share or 0.0) * total_steps / stages) for name, stage in below.items()}
        self._later = [(begins[name], parameter) for name, parameter in trained.items() if begins.get(name, 0) > 0]

    @contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Inside it, what does not learn yet at optimizer step `step` (from 0) is frozen; outside, all that is trained says so."""
        frozen = [parameter for begin, parameter in self._later if step < begin]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
