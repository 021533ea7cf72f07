"""Greedy generation, batched with padding on the left, ended by an end of sequence, a stop text, or a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from nbtune.inference.prefix import Prefix
    from nbtune.models.base import Base

__all__ = ["Decoding", "generate_chunk"]


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; the same for all columns of a grid."""

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()

    def __str__(self) -> str:
        stops = f", stopping at {', '.join(map(repr, self.stop))}" if self.stop else ""
        return f"greedy, at most {self.max_new_tokens} tokens{stops}"


def generate_chunk(base: Base, prompts: Sequence[Sequence[int]], decoding: Decoding, prefix: Prefix) -> list[str]:
    """The continuations of `prompts` (token ids); the caller holds the lease."""
    import torch
    from transformers import GenerationConfig, StoppingCriteriaList

    tokenizer = base.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    own = [list(prompt[prefix.length :]) for prompt in prompts]
    width = max(len(row) for row in own)
    ids = torch.tensor([[*prefix.ids, *([pad] * (width - len(row))), *row] for row in own], device=base.device)
    mask = torch.tensor([[1] * prefix.length + [0] * (width - len(row)) + [1] * len(row) for row in own], device=base.device)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=decoding.max_new_tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad, use_cache=True
    )
    stops = _StopTexts(tokenizer, decoding.stop, prefix.length + width)
    model: Any = base.model
    made = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=prefix.fresh(len(own)),
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([stops]) if decoding.stop else None,
    )
    texts = tokenizer.batch_decode(made[:, prefix.length + width :], skip_special_tokens=True)
    return [_cut(str(text), decoding.stop) for text in texts]


def _cut(text: str, stops: Sequence[str]) -> str:
    ends = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(ends)] if ends else text


class _StopTexts:
    """Ends each row by itself once its new text holds a stop text."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], start: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, tuple(stops), start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)
