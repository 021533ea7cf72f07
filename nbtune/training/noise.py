"""NEFTune: uniform noise on the embeddings while training (Jain et al. 2023, https://arxiv.org/abs/2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.data.batches import Batch

__all__ = ["neftune", "row_lengths"]


@contextmanager
def neftune(model: nn.Module, alpha: float | None, batch: Batch) -> Iterator[None]:
    """Inside it, alpha / sqrt(L d) times noise from [-1, 1] is added to each embedding; L is its own row's length, d the width."""
    if alpha is None:
        yield
        return
    import torch

    from nbtune.models.families import embeddings

    lengths = row_lengths(batch)

    def noisy(_module: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        scale = alpha / (lengths * output.shape[-1]).sqrt()
        noise = torch.empty_like(output).uniform_(-1, 1)
        return output + noise * scale[..., None].to(output.dtype)

    hook = embeddings(model).register_forward_hook(noisy)  # type: ignore[arg-type]
    try:
        yield
    finally:
        hook.remove()


def row_lengths(batch: Batch) -> torch.Tensor:
    """[B, T] float: how many tokens the row has that a token belongs to; rows begin where positions begin again."""
    import torch

    if batch.padding is not None:
        return batch.padding.sum(1, keepdim=True).expand_as(batch.input_ids).float()
    begins = (batch.position_ids == 0).long().flatten()
    row = begins.cumsum(0) - 1
    counts = torch.zeros(row.numel(), device=row.device).index_add_(0, row, torch.ones_like(row, dtype=torch.float32))
    return counts[row].view_as(batch.position_ids)
