"""What of a model stays as it is: how far up the blocks are frozen, and whether training would draw anything at random there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbtune.errors import ModelError
from nbtune.models.families import blocks, final_norms, head, is_seq2seq

if TYPE_CHECKING:
    from nbtune.models.base import Base

__all__ = ["has_dropout", "has_dropout_below", "lowest_trained_block"]


def lowest_trained_block(base: Base, adapter: str) -> int | None:
    """k, if all that is trained under `adapter` lies in block k or above; the number of blocks, if only the final norm or the head is.

    None where something below the blocks is trained (embeddings, a head that shares their matrix), outside the model, or nothing; and where
    there are an encoder's blocks beside a decoder's, which do not follow each other on the same tokens.
    """
    if is_seq2seq(base.config):
        return None
    try:
        layers = blocks(base.model)
        above = [head(base.model), *final_norms(base.model)]
    except ModelError:
        return None
    place = {id(parameter): len(layers) for module in above for parameter in module.parameters()}
    for number in reversed(range(len(layers))):  # what several blocks share counts as the lowest one's
        place |= {id(parameter): number for parameter in layers[number].parameters()}
    place |= {id(parameter): -1 for parameter in base.model.get_input_embeddings().parameters()}
    lowest = min((place.get(id(parameter), -1) for parameter in base.trained(adapter).values()), default=-1)
    return lowest if lowest >= 0 else None


def has_dropout_below(base: Base, depth: int) -> bool:
    """Whether any module but the blocks from `depth` on would drop something while training; adapters, not trained there, do not count."""
    return _has_dropout(base, {id(module) for block in blocks(base.model)[depth:] for module in block.modules()}, "")


def has_dropout(base: Base, adapter: str) -> bool:
    """Whether anything would be dropped while `adapter`, or the parts set free, are trained."""
    return _has_dropout(base, set(), adapter)


def _has_dropout(base: Base, left_out: set[int], adapter: str) -> bool:
    from torch import nn

    others = [f".{name}." for name in (base.peft.peft_config if base.peft is not None else ()) if name != adapter]
    for key, module in base.model.named_modules():
        if id(module) in left_out or any(name in f".{key}." for name in others):
            continue
        rates = [module.p] if isinstance(module, nn.Dropout) else [getattr(module, name, 0.0) for name in ("attention_dropout", "dropout")]
        if any(isinstance(rate, float) and rate > 0 for rate in rates):
            return True
    return False
