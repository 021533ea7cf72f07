"""What is claimed of methods, families and quantizations: the tests hold it to be so, and docs/methods.md is written from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nbtune.methods import get, is_estimator, names, tier
from tests.tiny import ENCODERS, FAMILIES, SEQ2SEQ

__all__ = [
    "EVERYWHERE",
    "OPTIONS",
    "PAGE",
    "QUANTIZATIONS",
    "SECOND_FAMILIES",
    "SECOND_TIER",
    "TRAINED",
    "encoder_refusal",
    "page",
    "refusal",
    "seq2seq_refusal",
]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
QUANTIZATIONS: Final = ("nf4", "fp4", "int8")
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "last-blocks": {"num_blocks": 1},
    "prefix-tuning": {"learning_rate": 3e-3},
    "trainable-tokens": {"tokens": ["a", "e", "i", "o", "t"]},
    "fourierft": {"n_frequency": 50},
    "multitask-prompt-tuning": {"sets": ["one", "two"]},
    "cpt": {"num_virtual_tokens": 24, "learning_rate": 1e-4},
    "randlora": {"r": 8},
    "waveft": {"n_frequency": 50},
    "c3a": {"block_size": 16},
    "vblora": {"vector_length": 16, "num_vectors": 32},
    "shira": {"r": 4},
    "road": {"group_size": 16},
    "miss": {"r": 8},
    "gralora": {"r": 8},
    "psoft": {"r": 8},
    "peanut": {"r": 8},
}
"""What a method needs on models as tiny as these."""

TRAINED: Final = tuple(name for name in names() if not is_estimator(get(name)) and tier(get(name)) == 1)
"""The methods that train something by gradients."""

SECOND_TIER: Final = tuple(name for name in names() if tier(get(name)) == 2)
SECOND_FAMILIES: Final = ("llama", "gpt2")
"""The decoders that the second tier is tested on; of encoders it is BERT."""

_NO_BIASES = ("llama", "mistral", "qwen3", "gemma2", "phi3")
_FAMILIES: Final = {
    **{("bitfit", family): "has no biases" for family in _NO_BIASES},
    **{(method, "gpt2"): "Conv1D" for method in ("loha", "lokr", "oft", "boft", "hra")},
    **{
        ("adaption-prompt", family): "attention as Llama has it" for family in ("gemma2", "phi", "phi3", "gpt2", "gpt_neox", "opt", "bloom")
    },
    **{(method, "gpt2"): "Conv1D" for method in ("c3a", "shira", "road", "miss", "psoft", "peanut", "osf")},
    ("ia3", "phi3"): "does not know which layers of a phi3",
}
_NEVER_HELD: Final = ("hra", "peanut", "c3a", "gralora", "tinylora", "unilora", "psoft", "osf")
_QUANTIZED: Final = {
    **{(method, each): "cannot be trained" for method in ("full", "last-blocks") for each in QUANTIZATIONS},
    **{("bitfit", each): "keeps in 16 bits" for each in QUANTIZATIONS},
    **{(method, each): "does not work on a base held as" for method in ("loha", "lokr") for each in ("nf4", "fp4")},
    **{(method, each): "does not work on a base" for method in _NEVER_HELD for each in QUANTIZATIONS},
    **{("pissa", each): "begins at the weights themselves" for each in QUANTIZATIONS},
    ("dora", "int8"): "cannot read from a base held as int8",
}


EVERYWHERE: Final = ("lora", "adapter", "prefix-tuning", "prompt-tuning", "full", "last-blocks", "head")
"""What the tests put on every family; the others only on Llama, BERT and T5, and on the rest by `make bench B=methods`."""


def refusal(method: str, family: str, quantization: str | None = None) -> str:
    """A part of what is said of it; empty where it works."""
    return (_QUANTIZED.get((method, quantization), "") if quantization else "") or _FAMILIES.get((method, family), "")


_ENCODERS: Final = {
    ("ia3", "modernbert"): "does not know which layers of a modernbert",
    **{("adaption-prompt", family): "attention as Llama has it" for family in ENCODERS},
    **{("cpt", family): "rows with their answers in front" for family in ENCODERS},
    **{("multitask-prompt-tuning", family): "learns several tasks at once" for family in ENCODERS},
}


def encoder_refusal(method: str, family: str) -> str:
    """The same on an encoder under a head over classes."""
    return _ENCODERS.get((method, family), "")


_SEQ2SEQ: Final = {
    ("bitfit", "t5"): "has no biases",
    **{("adaption-prompt", family): "attention as Llama has it" for family in SEQ2SEQ},
    **{("cpt", family): "reads prompts alone" for family in SEQ2SEQ},
    **{("multitask-prompt-tuning", family): "learns several tasks at once" for family in SEQ2SEQ},
}


def seq2seq_refusal(method: str, family: str) -> str:
    """The same on a model of an encoder and a decoder."""
    return _SEQ2SEQ.get((method, family), "")


def _all_but(refused: list[str]) -> str:
    return "all but " + ", ".join(refused) if refused else "all"


def page() -> str:
    """The page of the docs."""
    decoders, readers = ", ".join(FAMILIES), ", ".join(ENCODERS)
    lines = [
        "# Methods, families, quantizations",
        "",
        "Written by `make docs` from what is claimed in `tests/methods`: on random models of two layers of each family, that what is trained",
        "is what `nbtune.estimate` counts and nothing else has a gradient, and that with the adapter off the base gives its own logits exactly.",
        "The tests hold every method to it on Llama, BERT and T5 and some on every family, and every refusal; `make bench B=methods` holds the rest.",
        "Quantized bases are tested on Llama. Refused means: with the reason and what to use instead, before anything is loaded.",
        "",
        "Encoders stand under the new head of `objective: classification`. `features` trains nothing of a model, and takes each of them.",
        "Of models with both, the encoder reads the prompt and the decoder writes the answer (`objective: sft`, and no other).",
        "",
        f"| method | decoders: {decoders} | encoders: {readers} | both: {', '.join(SEQ2SEQ)} | base in nf4, fp4 | in int8 | merges |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(method, tuple(FAMILIES), tuple(ENCODERS), tuple(SEQ2SEQ)) for method in TRAINED]
    lines += [
        "",
        "## The second tier",
        "",
        "These are peft's, and contract tested on fewer families; nothing more is claimed of them, and their learning rates were not searched.",
        "On other families they may work; what peft cannot put on a model is refused before anything is loaded, too.",
        "",
        f"| method | decoders: {', '.join(SECOND_FAMILIES)} | encoders: bert | base in nf4, fp4 | in int8 | merges |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(method, SECOND_FAMILIES, ("bert",)) for method in SECOND_TIER]
    return "\n".join(lines) + "\n"


def _row(method: str, decoders: tuple[str, ...], encoders: tuple[str, ...], both: tuple[str, ...] = ()) -> str:
    families = _all_but([family for family in decoders if refusal(method, family)])
    under_head = _all_but([family for family in encoders if encoder_refusal(method, family)])
    if both:
        under_head += " | " + _all_but([family for family in both if seq2seq_refusal(method, family)])
    held = ["no" if (method, each) in _QUANTIZED else "yes" for each in ("nf4", "int8")]
    return f"| `{method}` | {families} | {under_head} | {held[0]} | {held[1]} | {'yes' if get(method).merges else 'no'} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
