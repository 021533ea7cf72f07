"""What differs between model families, looked up once: where the blocks are, where the head is, whether rows may be packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError
from nbtune.models.attention import ROWS_APART

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "KeysValues",
    "Sublayers",
    "blocks",
    "can_pack",
    "context_of",
    "final_norms",
    "head",
    "is_encoder",
    "keys_values",
    "sublayers",
    "untie_head",
    "vocabulary",
    "why_unpacked",
]

_PACKABLE: Final = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "phi3"})
"""Families whose sdpa attention was seen to take a boolean 4-D mask as it is, and positions that start again."""


_ENCODERS: Final = frozenset({"albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"})


_POSITIONS_BEHIND_PAD: Final = frozenset({"roberta", "xlm-roberta", "camembert"})


def is_encoder(config: PretrainedConfig) -> bool:
    """Whether a model reads in both directions, and so does not write."""
    return config.model_type in _ENCODERS and not getattr(config, "is_decoder", False)


def context_of(config: PretrainedConfig) -> int | None:
    """Most tokens that a model of that config reads; None where it does not say. RoBERTa's positions begin behind the padding's."""
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int):
        return None
    return most - int(config.pad_token_id or 0) - 1 if config.model_type in _POSITIONS_BEHIND_PAD else most


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


def vocabulary(config: PretrainedConfig) -> int:
    """Rows of the model's embeddings: the first id that is no token of its own."""
    text: Any = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.vocab_size)


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
    """The output layer, from hidden states to logits: over the vocabulary, or over classes.

    Raises:
        ModelError: the model has none.
    """
    layer = model.get_output_embeddings() or getattr(model, "classifier", None) or getattr(model, "score", None)
    if layer is None:
        message = f"a {type(model).__name__} has no output layer"
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


@dataclass(frozen=True)
class Sublayers:
    """Where the blocks write to the residual stream, by full module names.

    The last layer of each block's attention and of its feed-forward; and the feed-forwards as a whole where they are modules of their own.
    """

    attention_out: tuple[str, ...]
    feed_forward_out: tuple[str, ...]
    feed_forward: tuple[str, ...] | None


_ATTENTION_OUT: Final = (
    "self_attn.o_proj",  # Llama and its kin
    "self_attn.out_proj",  # OPT, BART
    "self_attn.dense",  # Phi
    "attention.output.dense",  # BERT, RoBERTa, DeBERTa
    "attention.out_lin",  # DistilBERT
    "attn.Wo",  # ModernBERT
    "attn.c_proj",  # GPT-2
    "attention.dense",  # GPT-NeoX
    "self_attention.dense",  # BLOOM
)
_FEED_FORWARD_OUT: Final = ("mlp.down_proj", "mlp.fc2", "fc2", "output.dense", "ffn.lin2", "mlp.Wo", "mlp.c_proj", "mlp.dense_4h_to_h")
_FEED_FORWARD: Final = ("mlp", "ffn")


def sublayers(model: PreTrainedModel) -> Sublayers:
    """Where the blocks of the model write; a family that is not known by its names is worked out from the shapes of its layers.

    Raises:
        ModelError: neither tells.
    """
    layers = blocks(model)
    prefix = next(name for name, module in model.named_modules() if module is layers)
    found = _known_parts(layers[0]) or _parts_by_shape(layers[0])
    if found is None:
        shown = ", ".join(name for name, _ in layers[0].named_children())
        message = f"it is not known which parts of a {type(layers[0]).__name__} (it has {shown}) are attention and feed-forward"
        raise ModelError(message, hint="use a method that is told its layers by name, such as lora with target_modules")

    def everywhere(part: str) -> tuple[str, ...]:
        return tuple(f"{prefix}.{number}.{part}" for number in range(len(layers)))

    attention, out, whole = found
    return Sublayers(everywhere(attention), everywhere(out), None if whole is None else everywhere(whole))


def _known_parts(block: nn.Module) -> tuple[str, str, str | None] | None:
    names = {name.removesuffix(".base_layer") for name, _ in block.named_modules()}
    attention = next((name for name in _ATTENTION_OUT if name in names), None)
    out = next((name for name in _FEED_FORWARD_OUT if name in names), None)
    whole = next((name for name in _FEED_FORWARD if name in names), None)
    return None if attention is None or out is None else (attention, out, whole)


@dataclass(frozen=True)
class KeysValues:
    """The projections that give the blocks' keys and values, by full names, and how many features of each are that (`sizes`).

    Where one projection gives queries, too, `columns` are the others' [first, behind the last] in its output.
    """

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    columns: tuple[tuple[int, int], ...] | None


_APART: Final = (("k_proj", "v_proj"), ("key", "value"), ("k_lin", "v_lin"), ("key_proj", "value_proj"))
_TOGETHER: Final = ("c_attn", "Wqkv", "qkv_proj", "query_key_value")


def keys_values(model: PreTrainedModel) -> KeysValues:
    """Where the model makes its keys and values.

    Raises:
        ModelError: that is not known of its family.
    """
    layers, config = blocks(model), model.config
    prefix = next(name for name, module in model.named_modules() if module is layers)
    found = {name.rsplit(".", 1)[-1]: name for name, _ in layers[0].named_modules() if "base_layer" not in name}
    pair = next((names for names in _APART if all(name in found for name in names)), None)
    columns: tuple[tuple[int, int], ...] | None = None
    if pair is not None:
        inside = [found[name] for name in pair]
        sizes = [_features(layers[0].get_submodule(name)) for name in inside]
    else:
        whole = next((found[name] for name in _TOGETHER if name in found), None)
        if whole is None or (whole.endswith("query_key_value") and config.model_type not in {"gpt_neox", "bloom"}):
            shown = ", ".join(name for name, _ in layers[0].named_children())
            message = f"it is not known where a {type(layers[0]).__name__} (it has {shown}) makes its keys and values"
            raise ModelError(message, hint="use prompt-tuning, which needs the embeddings alone, or lora")
        inside = [whole]
        columns = _not_queries(whole.rsplit(".", 1)[-1], config, _features(layers[0].get_submodule(whole)))
        sizes = [sum(end - begin for begin, end in columns)]
    names = tuple(f"{prefix}.{number}.{name}" for number in range(len(layers)) for name in inside)
    return KeysValues(names, tuple(sizes * len(layers)), columns)


def _features(layer: Any) -> int:
    """How many features a projection gives."""
    layer = getattr(layer, "base_layer", layer)
    return int(layer.nf if hasattr(layer, "nf") else layer.out_features)


def _not_queries(name: str, config: Any, features: int) -> tuple[tuple[int, int], ...]:
    heads = int(config.num_attention_heads)
    if name == "query_key_value":  # head by head: query, key, value
        width = features // (3 * heads)
        return tuple(((3 * head + 1) * width, (3 * head + 3) * width) for head in range(heads))
    if name == "qkv_proj":  # all queries, then the keys and values of fewer heads
        width = features // (heads + 2 * int(config.num_key_value_heads))
        return ((heads * width, features),)
    return ((features // 3, features),)


def _parts_by_shape(block: nn.Module) -> tuple[str, str, str | None] | None:
    """The last linear layer within what is called attention, and the last one outside it."""
    from torch import nn

    linear = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
    attention = [name for name in linear if "att" in name.lower()]
    others = [name for name in linear if "att" not in name.lower()]
    return (attention[-1], others[-1], None) if attention and others else None
