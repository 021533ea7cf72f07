"""Bases with something set free above frozen blocks, caches of those blocks, and the losses of both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nbtune.data.batches import collate, rows_of_step
from nbtune.data.encoded import Encoded
from nbtune.methods import get
from nbtune.models.base import Base
from nbtune.models.loading import source_of
from nbtune.models.shared import own_base
from nbtune.objectives import get as objective_of
from nbtune.training.activations import ActivationCache, open_cache

__all__ = ["SFT", "TRAINED", "base_with", "kept", "opened", "plain", "trained"]

SFT = objective_of("sft")
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "last block": ("last-blocks", {"num_blocks": 1}),
    "head": ("head", {}),
    "lora on the last block": ("lora", {"layers_to_transform": [1], "r": 4}),
}


def base_with(folder: Path, method: str, dtype: str = "float32", **options: Any) -> Base:
    base = own_base(source_of(folder), dtype=dtype, quantization=None, device="cpu")
    chosen = get(method)
    chosen.attach(base, chosen.spec.build(options), "it")
    return base


def opened(base: Base, rows: list[Encoded], folder: Path, **changes: Any) -> ActivationCache:
    cache, _ = open_cache(base, "it", rows, **{"objective": SFT, "packed": True, "folder": folder, "wanted": True, **changes})
    assert cache is not None
    return cache


Loss = Callable[[Any, list[int]], torch.Tensor]


def plain(base: Base, rows: list[Encoded], *, packed: bool) -> Loss:
    return lambda model, chosen: SFT.loss(model, collate([rows[row] for row in chosen], packed=packed, pad_id=0))[0]


def kept(cache: ActivationCache) -> Loss:
    return lambda model, chosen: cache.loss(model, SFT, chosen)[0]


def trained(base: Base, rows: list[Encoded], loss_of: Loss, steps: int = 20) -> list[float]:
    optimizer = torch.optim.AdamW(base.trained("it").values(), lr=1e-3)
    losses = []
    for step in range(steps):
        chosen = rows_of_step(len(rows), 8, 0, step)
        with base.lease("it", training=True) as model:
            loss = loss_of(model, chosen) / sum(rows[row].num_trained for row in chosen)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses
