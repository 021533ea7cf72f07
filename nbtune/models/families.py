"""What differs between model families, looked up once: where the blocks are, where the head is, whether rows may be packed.

A model of an encoder and a decoder (T5, Raffel et al. 2020, https://arxiv.org/abs/1910.10683; BART, Lewis et al. 2020,
https://arxiv.org/abs/1910.13461) has two lists of blocks; those of the decoder also attend to what the encoder gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.data.encoded import Answering
from nbtune.errors import ModelError
from nbtune.models.attention import ROWS_APART

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "ABOVE_BLOCKS",
    "KeysValues",
    "Sublayers",
    "answering",
    "blocks",
    "can_pack",
    "context_of",
    "embeddings",
    "final_norms",
    "head",
    "head_layers",
    "is_encoder",
    "is_seq2seq",
    "keys_values",
    "num_blocks",
    "one_text",
    "stacks",
    "sublayers",
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


def is_seq2seq(config: PretrainedConfig) -> bool:
    """Whether an encoder reads a prompt and a decoder of the same model writes the answer."""
    return bool(getattr(config, "is_encoder_decoder", False))


def answering(config: PretrainedConfig) -> Answering | None:
    """How a model of an encoder and a decoder answers; None: it is none.

    Raises:
        ModelError: its config does not say with which token its decoder begins.
    """
    if not is_seq2seq(config):
        return None
    start = getattr(config, "decoder_start_token_id", None)
    if not isinstance(start, int):
        message = f"the config of this {config.model_type} does not say with which token its decoder begins"
        raise ModelError(
            message, hint="set decoder_start_token_id in its config.json: of T5 the padding token, of BART the end of sequence"
        )
    return Answering(start)


def one_text(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a forward of one text [1, T] is told, so that its last logits are those of what follows it."""
    answers = answering(model.config)
    return {"input_ids": ids} | ({} if answers is None else {"decoder_input_ids": ids.new_full((1, 1), answers.decoder_start)})


def num_blocks(config: PretrainedConfig) -> int:
    """How many `blocks` a model of that config has, by the usual names (0: it does not say)."""
    text: Any = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = (getattr(text, name, None) for name in ("num_decoder_layers", "decoder_layers", "num_hidden_layers"))
    return int(next((number for number in found if number), 0))


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
    if is_seq2seq(config):
        return f"{config.model_type} reads prompts and writes answers in sequences of their own"
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


def stacks(model: PreTrainedModel) -> tuple[nn.ModuleList, ...]:
    """The lists of transformer blocks: one, or the encoder's and the decoder's.

    Raises:
        ModelError: the model has no such list.
    """
    parts: Any = (model.get_encoder(), model.get_decoder()) if is_seq2seq(model.config) else (model,)
    return tuple(_longest_list(part) for part in parts)


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks below the head, from the embeddings up; beside an encoder those of the decoder.

    Raises:
        ModelError: the model has no list of blocks.
    """
    return stacks(model)[-1]


def _longest_list(part: nn.Module) -> nn.ModuleList:
    """Of the lists that are in no other; a block may hold one, too (T5's layers, experts)."""
    from torch import nn

    found = {name: module for name, module in part.named_modules() if isinstance(module, nn.ModuleList)}
    lists = [module for name, module in found.items() if not any(name.startswith(f"{other}.") for other in found)]
    if not lists:
        message = f"no list of blocks was found in a {type(part).__name__}"
        raise ModelError(message, hint="use a method that needs none: lora, full")
    return max(lists, key=len)


def embeddings(model: PreTrainedModel) -> Any:
    """The layer that embeds a prompt's tokens: of a model with an encoder that of the encoder, which shares its matrix with the others."""
    part: Any = model.get_encoder() if is_seq2seq(model.config) else model
    return part.get_input_embeddings()


ABOVE_BLOCKS: Final = {
    "final_layer_norm": True,  # OPT lists these two before its blocks
    "project_out": True,
    "rel_embeddings": False,  # DeBERTa lists these three behind them: each block reads the positions, the first one's output is convolved
    "LayerNorm": False,
    "conv": False,
    "layernorm_embedding": False,  # BART
}
"""Whether a module beside a list of blocks, by its name there, is used above them; any other is where it is listed behind them."""


def final_norms(model: PreTrainedModel) -> list[nn.Module]:
    """The norms between the last block and the head: those that stand beside the list of blocks, above it (none: an empty list).

    Raises:
        ModelError: the model has no list of blocks.
    """
    layers = blocks(model)
    for module in model.modules():
        children = dict(module.named_children())
        if layers in children.values():
            place = list(children.values()).index(layers)
            above = [child for number, (name, child) in enumerate(children.items()) if ABOVE_BLOCKS.get(name, number > place)]
            return [child for child in above if "norm" in type(child).__name__.lower()]
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


def head_layers(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the layers that stand between a model that fills in and its output over the vocabulary, or beside that."""
    from torch import nn

    last, own = head(model), f"{model.base_model_prefix}."
    layers = [(name, module) for name, module in model.named_modules() if not name.startswith(own) and module is not last]
    return tuple(name for name, module in layers if isinstance(module, nn.Linear | nn.LayerNorm))


@dataclass(frozen=True)
class Sublayers:
    """Where the blocks write to the residual stream, by full module names.

    The last layer of each block's attention (of a decoder beside an encoder: of both its attentions) and of its feed-forward; and the
    feed-forwards as a whole where they are modules of their own.
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
    "layer.0.SelfAttention.o",  # T5
)
_CROSS_ATTENTION_OUT: Final = ("encoder_attn.out_proj", "layer.1.EncDecAttention.o")
_FEED_FORWARD_OUT: Final = (
    "mlp.down_proj",
    "mlp.fc2",
    "fc2",
    "output.dense",
    "ffn.lin2",
    "mlp.Wo",
    "mlp.c_proj",
    "mlp.dense_4h_to_h",
    "layer.1.DenseReluDense.wo",  # T5's encoder
    "layer.2.DenseReluDense.wo",  # and its decoder
)
_FEED_FORWARD: Final = ("mlp", "ffn", "layer.1.DenseReluDense", "layer.2.DenseReluDense")


def sublayers(model: PreTrainedModel) -> Sublayers:
    """Where the blocks of the model write; a family that is not known by its names is worked out from the shapes of its layers.

    Raises:
        ModelError: neither tells.
    """
    both = is_seq2seq(model.config)
    written: tuple[list[str], ...] = ([], [], [])
    for layers in stacks(model):
        found = _known_parts(layers[0], cross=both) or (None if both else _parts_by_shape(layers[0]))
        if found is None:
            shown = ", ".join(name for name, _ in layers[0].named_children())
            message = f"it is not known which parts of a {type(layers[0]).__name__} (it has {shown}) are attention and feed-forward"
            raise ModelError(message, hint="use a method that is told its layers by name, such as lora with target_modules")
        for names, parts in zip(written, found, strict=True):
            names.extend(_everywhere(model, layers, parts))
    attention, out, whole = (tuple(names) for names in written)
    return Sublayers(attention, out, whole or None)


def _everywhere(model: PreTrainedModel, layers: nn.ModuleList, parts: Sequence[str]) -> list[str]:
    """The full names of these parts of each block of a list."""
    prefix = next(name for name, module in model.named_modules() if module is layers)
    return [f"{prefix}.{number}.{part}" for number in range(len(layers)) for part in parts]


_Parts = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
"""Of a block: where its attentions write, where its feed-forward does, and the feed-forward as a whole (): it is no module of its own."""


def _known_parts(block: nn.Module, *, cross: bool) -> _Parts | None:
    names = {name.removesuffix(".base_layer") for name, _ in block.named_modules()}
    attention, more, out, whole = (
        tuple(name for name in known if name in names)[:1]
        for known in (_ATTENTION_OUT, _CROSS_ATTENTION_OUT if cross else (), _FEED_FORWARD_OUT, _FEED_FORWARD)
    )
    return ((*attention, *more), out, whole) if attention and out else None


@dataclass(frozen=True)
class KeysValues:
    """The projections that give the blocks' keys and values, by full names, and how many features of each are that (`sizes`).

    Where one projection gives queries, too, `columns` are the others' [first, behind the last] in its output.
    """

    modules: tuple[str, ...]
    sizes: tuple[int, ...]
    columns: tuple[tuple[int, int], ...] | None


_APART: Final = (("k_proj", "v_proj"), ("key", "value"), ("k_lin", "v_lin"), ("key_proj", "value_proj"), ("k", "v"))
_CROSS_ATTENTION: Final = ("encoder_attn.", "EncDecAttention.")
_TOGETHER: Final = ("c_attn", "Wqkv", "qkv_proj", "query_key_value")


def keys_values(model: PreTrainedModel) -> KeysValues:
    """Where the model makes its keys and values of a prompt.

    Beside an encoder that is in the encoder's blocks, and where the decoder's attend to it; what the decoder writes is no part of a prompt.

    Raises:
        ModelError: that is not known of its family.
    """
    found = [_keys_values_in(model, layers, cross=number > 0) for number, layers in enumerate(stacks(model))]
    modules, sizes = (tuple(each for part in found for each in getattr(part, name)) for name in ("modules", "sizes"))
    return KeysValues(modules, sizes, found[0].columns)


def _keys_values_in(model: PreTrainedModel, layers: nn.ModuleList, *, cross: bool) -> KeysValues:
    """Those of one list of blocks; with `cross` of their attention to an encoder."""
    config = model.config
    names = [name for name, _ in layers[0].named_modules() if "base_layer" not in name]
    found = {name.rsplit(".", 1)[-1]: name for name in names if not cross or any(mark in name for mark in _CROSS_ATTENTION)}
    pair = next((both for both in _APART if all(name in found for name in both)), None)
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
    return KeysValues(tuple(_everywhere(model, layers, inside)), tuple(sizes * len(layers)), columns)


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


def _parts_by_shape(block: nn.Module) -> _Parts | None:
    """The last linear layer within what is called attention, and the last one outside it."""
    from torch import nn

    linear = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
    attention = [name for name in linear if "att" in name.lower()]
    others = [name for name in linear if "att" not in name.lower()]
    return ((attention[-1],), (others[-1],), ()) if attention and others else None
