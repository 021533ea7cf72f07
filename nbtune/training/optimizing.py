"""Optimizers over what is trained, the course of the learning rate, and updates that are left out where a gradient is not finite."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from nbtune.errors import SpecError
from nbtune.models.families import ABOVE_BLOCKS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.spec import FinetuneSpec

__all__ = ["blocks_below", "learning_rate_at", "make_optimizer", "step_if_finite"]

_FUSED_ON: Final = frozenset({"cpu", "cuda"})


def make_optimizer(trained: Mapping[str, nn.Parameter], spec: FinetuneSpec) -> torch.optim.Optimizer:
    """The optimizer that `spec.optim` names, over two or more groups of parameters.

    Biases and norms (one dimension) do not decay. Each group holds `lr_ratio`, its learning rate as a multiple of the schedule's: with
    `loraplus_lr_ratio` that of LoRA's B matrices (Hayou et al. 2024, https://arxiv.org/abs/2402.12354), with `layerwise_lr_decay` d of the
    block n below the topmost d^n, and of the embeddings one more (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2),
    else 1.

    Raises:
        SpecError: the device has no such optimizer.
    """
    groups = _groups(trained, spec)
    device = next(iter(trained.values())).device.type
    return {"adamw": _adamw, "adamw_8bit": _adamw_8bit, "adafactor": _adafactor, "sgd": _sgd}[spec.optim](groups, spec, device)


def _groups(trained: Mapping[str, nn.Parameter], spec: FinetuneSpec) -> list[dict[str, Any]]:
    ratio = getattr(spec, "loraplus_lr_ratio", None) or 1.0
    fall = getattr(spec, "layerwise_lr_decay", None) or 1.0
    below = blocks_below(trained) if fall != 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        decay = spec.weight_decay if parameter.ndim > 1 else 0.0
        scale = ratio if ".lora_B." in f".{name}." or ".lora_embedding_B." in f".{name}." else fall ** below.get(name, 0)
        groups.setdefault((decay, scale), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "lr_ratio": scale} for (decay, scale), found in groups.items()]


def blocks_below(names: Iterable[str]) -> dict[str, int]:
    """{name: how many blocks below the topmost it lies}.

    Modules are named in the order of the forward, so embeddings come before the first block and norm and head after the last, and the
    blocks of an encoder before those of its decoder. What families name elsewhere beside a list of blocks is put where it is used.
    """
    begun: dict[str, None] = {}
    beside: dict[str, tuple[int, int]] = {}  # by what a list of blocks stands in: where its first begins, and its last
    at = {}
    for name in names:
        if block := re.match(r"(.*?)\w+\.\d+\.", name):
            first, _ = beside.get(block[1], (len(begun), 0))
            begun[block[0]] = None
            beside[block[1]] = first, len(begun)
        at[name] = len(begun)
    for name in at:
        for parent, (first, last) in beside.items():
            child = name.removeprefix(parent).split(".")[0]
            if name.startswith(parent) and child in ABOVE_BLOCKS:
                at[name] = last if ABOVE_BLOCKS[child] else first
    return {name: len(begun) - number for name, number in at.items()}


def _adamw(groups: list[dict[str, Any]], spec: FinetuneSpec, device: str) -> torch.optim.Optimizer:
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101."""
    import torch

    betas = (spec.adam_beta1, spec.adam_beta2)
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=betas, eps=spec.adam_epsilon, fused=device in _FUSED_ON)


def _adamw_8bit(groups: list[dict[str, Any]], spec: FinetuneSpec, device: str) -> torch.optim.Optimizer:
    """Dettmers et al. 2022, https://arxiv.org/abs/2110.02861."""
    if device != "cuda":
        raise SpecError(f"optim adamw_8bit needs a CUDA device, and this run is on {device}", hint="use adamw, or adafactor to save memory")
    import bitsandbytes.optim as bnb

    betas = (spec.adam_beta1, spec.adam_beta2)
    optimizer: torch.optim.Optimizer = cast("Any", bnb).AdamW8bit(groups, lr=spec.learning_rate, betas=betas, eps=spec.adam_epsilon)
    return optimizer


def _adafactor(groups: list[dict[str, Any]], spec: FinetuneSpec, _device: str) -> torch.optim.Optimizer:
    """Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, with the learning rate as it is said, as is usual in fine-tuning."""
    from transformers.optimization import Adafactor

    return Adafactor(groups, lr=spec.learning_rate, scale_parameter=False, relative_step=False)


def _sgd(groups: list[dict[str, Any]], spec: FinetuneSpec, device: str) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(groups, lr=spec.learning_rate, fused=device in _FUSED_ON)


def step_if_finite(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> None:
    """The update, or none where `norm` (0-d, of the whole gradient) is not finite, as a GradScaler does it.

    Fused optimizers decide on the device and nobody waits; others have to be told, which waits for the step.
    """
    import torch

    if optimizer.defaults.get("fused"):
        optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif math.isfinite(float(norm)):
        optimizer.step()


def learning_rate_at(step: int, total: int, spec: FinetuneSpec) -> float:
    """The learning rate of optimizer step `step` (from 0) of `total`: a linear rise, then the course that `lr_scheduler_type` names.

    constant; linear to 0; half a cosine to 0 (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983); or constant with a linear
    fall to 0 in the last `decay_ratio` of the steps (warmup-stable-decay, Hu et al. 2024, https://arxiv.org/abs/2404.06395).
    """
    warmup = spec.warmup_steps if spec.warmup_steps is not None else round(spec.warmup_ratio * total)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    falling = min(1.0, (total - step) / max(1.0, spec.decay_ratio * total))
    factor = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "warmup_stable_decay": falling,
    }[spec.lr_scheduler_type]
    return spec.learning_rate * max(0.0, factor)
