"""What a model is and what was learnt on it, hashed: the same again, or another one under its name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError
from nbtune.models.families import stacks

if TYPE_CHECKING:
    import torch

    from nbtune.models.base import Base, Trained

__all__ = ["fingerprint", "sum_of"]

_NUMBERS: Final = 64


def fingerprint(base: Base) -> str:
    """SHA-256 over numbers from the embeddings and from each weight of the first and the last block (of both stacks), as float64.

    What adapters add is left out. The numbers are the same in every number format that holds them exactly; a quantized base has its own.
    """
    digest = hashlib.sha256()
    layer: Any = base.model.get_input_embeddings()
    own = {"embeddings": getattr(layer, "base_layer", layer).weight}
    try:
        found = stacks(base.model)
    except ModelError:
        found = ()  # none that are known as such
    for place, layers in enumerate(found):
        for number in {0, len(layers) - 1}:
            for key, parameter in layers[number].named_parameters():
                plain = key.replace(".base_layer", "")
                if not _added(base, key):
                    own[f"{'' if len(found) == 1 else f'{place}:'}{number}.{plain}"] = parameter
    for key in sorted(own):
        digest.update(f"{key}:{tuple(own[key].shape)}".encode())
        digest.update(_sample(own[key]))
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


def _added(base: Base, key: str) -> bool:
    """Whether an adapter brought the parameter."""
    return base.peft is not None and any(f".{name}." in f".{key}." for name in base.peft.peft_config)


def _sample(parameter: torch.Tensor) -> bytes:
    """Numbers from the beginning, the middle and the end of a weight."""
    import torch

    flat = parameter.detach().flatten()
    places = torch.linspace(0, max(0, flat.numel() - 1), min(_NUMBERS, flat.numel()), dtype=torch.float64).long()
    return flat[places.to(flat.device)].double().cpu().numpy().tobytes()
