"""P-tuning: the vectors in front of each prompt come out of a small network, so that they learn together.

Liu et al. 2021, https://arxiv.org/abs/2103.10385. Here the network adds to the vectors, which are trained as well. Once training is over
only what it makes of them is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from nbtune.methods.prompt_tuning import PromptTuning, PromptTuningSpec, add_vectors, initial_ids
from nbtune.spec import FinetuneSpec, option, peak

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from nbtune.models.base import Base

__all__ = ["METHOD", "PTuning", "PTuningSpec"]


class PTuningSpec(PromptTuningSpec):
    """Prompt tuning's, and the width of the network."""

    encoder_hidden_size: int = option(128, "width of the network", ge=1, le=16384, scale="log", slider=(16, 1024))
    learning_rate: float = peak(1e-2)


class PTuning(PromptTuning):
    """See the module's text."""

    name: ClassVar[str] = "p-tuning"
    summary: ClassVar[str] = "prompt tuning through a small network, which learns faster"
    paper: ClassVar[str] = "https://arxiv.org/abs/2103.10385"
    spec: ClassVar[type[FinetuneSpec]] = PTuningSpec

    def attach(self, base: Base, spec: Any, name: str) -> None:
        """Adds the vectors and the network to the embedding layer."""
        add_vectors(base, spec, name, initial_ids(base, spec), encoder_hidden_size=spec.encoder_hidden_size)

    def fold(self, tensors: Mapping[str, torch.Tensor], _config: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The vectors that the network makes, without the network."""
        from nbtune.methods.virtual import folded

        return folded(tensors), {"encoder_hidden_size": None}


METHOD: Final = PTuning()
