"""What differs between model families, looked up once: where the blocks are, where the head is, whether rows may be packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError
from nbtune.models.attention import ROWS_APART

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["blocks", "can_pack", "final_norms", "head", "untie_head", "why_unpacked"]

_PACKABLE: Final = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "phi3"})
"""Families whose sdpa attention was seen to take a boolean 4-D mask as it is, and positions that start again."""


def can_pack(config: PretrainedConfig) -> bool:
    """Whether several rows may share one sequence (full attention in every layer, rotary positions)."""
    return not why_unpacked(config)


def why_unpacked(config: PretrainedConfig) -> str:
    """What stands against packing, in a few words to show; empty where nothing does."""
    attention = getattr(config, "_attn_implementation", None)
    windows = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if windows or sliding:
        return f"{config.model_type} has layers that do not see the whole row"
    if config.model_type not in _PACKABLE:
        return f"{config.model_type} was not seen to keep packed rows apart"
    return "" if attention in ("sdpa", ROWS_APART) else f"packing needs sdpa attention, and this is {attention}"


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of transformer blocks, from the embeddings up: the longest list of modules in the model.

    Raises:
        ModelError: the model has no such list.
    """
    from torch import nn

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        message = f"no list of blocks was found in a {type(model).__name__}"
        raise ModelError(message, hint="use a method that needs none: lora, full")
    return max(lists, key=len)


def final_norms(model: PreTrainedModel) -> list[nn.Module]:
    """The norms between the last block and the head: those that stand beside the list of blocks, after it (none: an empty list).

    Raises:
        ModelError: the model has no list of blocks.
    """
    layers = blocks(model)
    for module in model.modules():
        children = list(module.children())
        places = [place for place, child in enumerate(children) if child is layers]
        if places:
            return [child for child in children[places[0] + 1 :] if "norm" in type(child).__name__.lower()]
    return []


def head(model: PreTrainedModel) -> nn.Module:
    """The output layer, from hidden states to logits.

    Raises:
        ModelError: the model has none.
    """
    layer = model.get_output_embeddings()
    if layer is None:
        message = f"a {type(model).__name__} has no output layer over the vocabulary"
        raise ModelError(message, hint=f"load a model that generates text; {model.config.model_type} models here do not")
    return layer  # type: ignore[no-any-return]


def untie_head(model: PreTrainedModel) -> None:
    """Gives a head that shares the embeddings' matrix a copy of its own, so that it can be trained alone."""
    from torch import nn

    embeddings: Any = model.get_input_embeddings()
    layer: Any = head(model)
    if getattr(layer, "weight", None) is getattr(embeddings, "weight", None):
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)
        model.config.tie_word_embeddings = False
