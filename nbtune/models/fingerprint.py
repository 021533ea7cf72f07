"""What a model is and what was learnt on it, hashed: the same again, or another one under its name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from nbtune.models.families import head

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nbtune.models.base import Base, Trained

__all__ = ["fingerprint", "sum_of"]

_FEWEST: Final = 64
_MOST: Final = 2**18
_WRAPPED: Final = re.compile(r"\.(base_layer|original_module|token_adapter)\b")
"""Where peft puts the module in whose place it stands."""


def fingerprint(base: Base) -> str:
    """SHA-256 over a number of each row of every weight, as float64; over 64 of a weight of fewer rows, 2**18 of one of more.

    What adapters add is left out, and so are the layers that are new to the model (`Base.heads`). The numbers are the same in every
    number format that holds them exactly; a quantized base has its own.
    """
    digest = hashlib.sha256()
    for key, parameter in sorted(_weights(base), key=itemgetter(0)):
        digest.update(f"{key}:{tuple(parameter.shape)}".encode())
        digest.update(_sample(parameter))
    return digest.hexdigest()


def sum_of(learnt: Trained) -> str:
    """SHA-256 over the names, shapes, formats and bytes of all tensors of what was learnt."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(learnt.tensors):
        tensor = learnt.tensors[key].detach().cpu().contiguous()
        digest.update(f"{key}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weights(base: Base) -> Iterator[tuple[str, nn.Parameter]]:
    """Each weight of the model by the name that it has without adapters. One that is words and head at once is both, untied or not."""
    ends = {"words": _inner(base.model.get_input_embeddings()).weight}
    if not base.labels:
        ends["head"] = _inner(head(base.model)).weight
    yield from ends.items()
    told = {id(weight) for weight in ends.values()}
    added = [f".{name}." for name in base.peft.peft_config] if base.peft is not None else []
    new = tuple(f"{name}." for name in base.heads)
    for key, parameter in base.model.named_parameters():
        if id(parameter) not in told and not key.startswith(new) and not any(mark in f".{key}." for mark in added):
            yield _WRAPPED.sub("", key), parameter


def _inner(layer: Any) -> Any:
    """The model's own layer, out of what peft has put around it."""
    while (inner := getattr(layer, "original_module", getattr(layer, "base_layer", None))) is not None:
        layer = inner
    return layer


def _sample(parameter: torch.Tensor) -> bytes:
    """Numbers at even distances from the first to the last: as many as there are rows, so that each row has one."""
    import torch

    flat = parameter.detach().flatten()
    wanted = min(max(_FEWEST, len(parameter) if parameter.ndim else 1), _MOST, flat.numel())
    places = torch.linspace(0, max(0, flat.numel() - 1), wanted, dtype=torch.float64).long()
    return flat[places.to(flat.device)].cpu().double().numpy().tobytes()
