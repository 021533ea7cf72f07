"""Real models made in a second: random ones of two layers with a small tokenizer of their own, as folders that transformers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["ENCODERS", "FAMILIES", "SEQ2SEQ", "tiny", "tiny_encoder", "tiny_llama", "tiny_seq2seq"]

LINES = (
    "Which team handles this ticket? Ticket: the parcel never came, I want my money back. Team:",
    "billing shipping login refund password account printer invoice delivery late broken",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?-'\"()[]{}#/\n",
)


_WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED: dict[str, Any] = {**_WIDE, "num_key_value_heads": 2, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**_GROUPED, "tie_word_embeddings": True},
    "mistral": {**_GROUPED, "sliding_window": None},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 16},
    "gemma2": {**_GROUPED, "head_dim": 16},
    "phi": {**_WIDE, "max_position_embeddings": 512},
    "phi3": {**_GROUPED, "pad_token_id": 0},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {**_WIDE, "max_position_embeddings": 512},
    "opt": {**_WIDE, "dropout": 0.0, "ffn_dim": 128, "word_embed_proj_dim": 64, "max_position_embeddings": 512},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
}
"""Decoders by transformers' model type, with what makes them small; nothing drops out, so that losses can be compared."""


_READS: dict[str, Any] = {**_WIDE, "max_position_embeddings": 140, "initializer_range": 0.2}
_UNDROPPED: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {**_READS, **_UNDROPPED},
    "roberta": {**_READS, **_UNDROPPED, "type_vocab_size": 1},
    "distilbert": {
        "dim": 64,
        "hidden_dim": 128,
        "n_layers": 2,
        "n_heads": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "max_position_embeddings": 140,
        "initializer_range": 0.2,
    },
    "electra": {**_READS, **_UNDROPPED, "embedding_size": 64},
    "modernbert": {**_READS, "global_attn_every_n_layers": 1, "classifier_dropout": 0.0},
    "deberta-v2": {**_READS, **_UNDROPPED, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
}
"""Encoders likewise; weights are large enough for texts to differ in the end."""


SEQ2SEQ: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    "bart": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_position_embeddings": 256,
        "dropout": 0.0,
        "init_std": 0.2,
    },
}
"""Models of an encoder and a decoder likewise."""


def tiny_llama(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """`tiny` of the family that most tests need."""
    return tiny("llama", folder, seed=seed, **changes)


def tiny(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Writes the model and its tokenizer (byte-level BPE, no text is unknown to it) to `folder`; returns the folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = _tokenizer(["<|end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", model_max_length=512)  # noqa: S106  a token of text
    ends = {"bos_token_id": None, "eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id}
    config = AutoConfig.for_model(family, vocab_size=len(fast), **{**ends, **FAMILIES[family], **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tiny_encoder(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """The same for an encoder, whose tokenizer puts [CLS] and [SEP] round a text."""
    import torch
    from tokenizers import processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    marks = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = _tokenizer(list(marks))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=marks[0], cls_token=marks[1], sep_token=marks[2], mask_token=marks[3], model_max_length=128
    )
    ends = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(family, vocab_size=len(fast), **{**ends, **ENCODERS[family], **changes})
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    AutoModel.from_config(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tiny_seq2seq(family: str, folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """The same for an encoder and a decoder: T5's tokenizer puts </s> behind a text, BART's <s> and </s> round it.

    T5's decoder begins with the padding, BART's with </s> and, as the published ones are told to, <s>.
    """
    import torch
    from tokenizers import processors
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    t5 = "t5" in family
    tokenizer = _tokenizer(["<pad>", "</s>", "<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>" if t5 else "<s> $A </s>", special_tokens=[("</s>", 1), ("<s>", 2)]
    )
    marks = {"pad_token": "<pad>", "eos_token": "</s>", **({} if t5 else {"bos_token": "<s>"})}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **marks)
    begin = {"decoder_start_token_id": 0} if t5 else {"bos_token_id": 2, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
    ends = {"pad_token_id": 0, "eos_token_id": 1, **begin}
    config = AutoConfig.for_model(family, vocab_size=len(fast), **{**ends, **SEQ2SEQ["t5" if t5 else "bart"], **changes})
    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(config)
    if t5:
        model.get_input_embeddings().weight.data.mul_(0.3)  # type: ignore[union-attr]  else it writes what it reads, the padding
    else:
        model.generation_config.forced_bos_token_id = 2
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def _tokenizer(special: list[str]) -> Any:
    """A small byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer
