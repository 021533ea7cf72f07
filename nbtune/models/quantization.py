"""Bases held in 4 or 8 bits through bitsandbytes, on GPUs and on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig

__all__ = ["config_for", "keep_differentiable"]


_HEADS: Final = (
    *("classifier", "score", "cls", "lm_head", "head", "decoder", "lm_predictions"),
    *("vocab_transform", "vocab_projector", "generator_predictions", "generator_lm_head"),
)
"""What models call what stands above their last block, where it is new."""


def config_for(quantization: str, dtype: torch.dtype, *, new_head: bool = False) -> BitsAndBytesConfig:
    """Transformers' configuration of "nf4", "fp4" (QLoRA, https://arxiv.org/abs/2305.14314) or "int8" (https://arxiv.org/abs/2208.07339).

    A head over the vocabulary is left alone by itself; one that is new has to be named.

    Raises:
        ModelError: bitsandbytes is not there.
    """
    from nbtune.models.quiet import silence

    silence()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        message = f"{quantization} needs the package bitsandbytes, which cannot be imported: {error}"
        raise ModelError(message, hint="pip install bitsandbytes, or leave quantization out") from error
    from transformers import BitsAndBytesConfig

    left: Any = {"llm_int8_skip_modules": list(_HEADS)} if new_head else {}
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **left)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype, **left)


def held_as(model: nn.Module) -> str | None:
    """How bitsandbytes holds the layers of a model, by the name that nbtune has for it; None: it does not."""
    for module in model.modules():
        kind = type(module).__name__
        if kind in ("Linear8bitLt", "Linear4bit"):
            return "int8" if kind == "Linear8bitLt" else str(getattr(module.weight, "quant_type", "nf4"))
    return None


def keep_differentiable(model: nn.Module) -> None:
    """Stops 4-bit layers from repacking themselves at the first evaluation.

    On CPUs with AVX512-bf16 bitsandbytes then switches to a kernel without gradients, for good: training goes on with wrong
    gradients and saved weights are garbled, silently.
    """
    from bitsandbytes.nn import Linear4bit  # type: ignore[attr-defined]

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
