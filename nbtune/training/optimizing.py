"""AdamW over what is trained, and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.spec import FinetuneSpec

__all__ = ["learning_rate_at", "make_optimizer"]


def make_optimizer(trained: Mapping[str, nn.Parameter], spec: FinetuneSpec) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101); biases and norms (one dimension) do not decay."""
    import torch

    matrices = [parameter for parameter in trained.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in trained.values() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=spec.learning_rate)


def learning_rate_at(step: int, total: int, spec: FinetuneSpec) -> float:
    """The learning rate of optimizer step `step` (from 0) of `total`: a linear rise, then constant, linear or half a cosine to 0."""
    warmup = round(spec.warmup_ratio * total)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    factor = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[spec.lr_scheduler_type]
    return spec.learning_rate * factor
