"""What is claimed of methods, families and quantizations: the tests hold it to be so, and docs/methods.md is written from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from nbtune.methods import get, is_estimator, names
from tests.tiny import ENCODERS, FAMILIES

__all__ = ["OPTIONS", "PAGE", "QUANTIZATIONS", "TRAINED", "encoder_refusal", "page", "refusal"]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
QUANTIZATIONS: Final = ("nf4", "fp4", "int8")
OPTIONS: Final[dict[str, dict[str, Any]]] = {"last-blocks": {"num_blocks": 1}, "fourierft": {"n_frequency": 50}}
"""What a method needs on models as tiny as these."""

TRAINED: Final = tuple(name for name in names() if not is_estimator(get(name)))
"""The methods that train something by gradients."""

_NO_BIASES = ("llama", "mistral", "qwen3", "gemma2", "phi3")
_FAMILIES: Final = {
    **{("bitfit", family): "has no biases" for family in _NO_BIASES},
    **{(method, "gpt2"): "Conv1D" for method in ("loha", "lokr", "oft", "boft", "hra")},
    ("ia3", "phi3"): "does not know which layers of a phi3",
}
_QUANTIZED: Final = {
    **{(method, each): "cannot be trained" for method in ("full", "last-blocks") for each in QUANTIZATIONS},
    **{("bitfit", each): "has no biases" for each in QUANTIZATIONS},  # on a Llama
    **{(method, each): "does not work on a base held as" for method in ("loha", "lokr", "hra") for each in ("nf4", "fp4")},
    ("dora", "int8"): "cannot read from a base held as int8",
}


def refusal(method: str, family: str, quantization: str | None = None) -> str:
    """A part of what is said of it; empty where it works."""
    return _FAMILIES.get((method, family), "") or (_QUANTIZED.get((method, quantization), "") if quantization else "")


_ENCODERS: Final = {("ia3", "modernbert"): "does not know which layers of a modernbert"}


def encoder_refusal(method: str, family: str) -> str:
    """The same on an encoder under a head over classes."""
    return _ENCODERS.get((method, family), "")


def page() -> str:
    """The page of the docs."""
    lines = [
        "# Methods, families, quantizations",
        "",
        "Written by `make docs` from what `tests/methods` holds to be so: on random models of two layers of each family, that what is trained",
        "is what `nbtune.estimate` counts and nothing else has a gradient, and that with the adapter off the base gives its own logits exactly.",
        "Quantized bases are tested on Llama. Refused means: with the reason and what to use instead, before anything is loaded.",
        "",
        "Encoders stand under the new head of `objective: classification`. `features` trains nothing of a model, and takes each of them.",
        "",
        f"| method | decoders: {', '.join(FAMILIES)} | encoders: {', '.join(ENCODERS)} | base in nf4, fp4 | in int8 | merges |",
        "|---|---|---|---|---|---|",
    ]
    for method in TRAINED:
        refused = [family for family in FAMILIES if refusal(method, family)]
        families = "all" if not refused else "all but " + ", ".join(refused)
        left = [family for family in ENCODERS if encoder_refusal(method, family)]
        encoders = "all" if not left else "all but " + ", ".join(left)
        held = ["no" if (method, each) in _QUANTIZED and method != "bitfit" else "yes" for each in ("nf4", "int8")]
        if method == "bitfit":
            held = ["no", "no"]
        lines.append(f"| `{method}` | {families} | {encoders} | {held[0]} | {held[1]} | {'yes' if get(method).merges else 'no'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
