"""Greedy generation, batched with padding on the left, ended by an end of sequence, a stop text, or a number of tokens.

For an encoder prompts are padded on the right: its positions count from a text's beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.inference.constraining import Constrained, Constraint

if TYPE_CHECKING:
    import torch

    from nbtune.inference.prefix import Prefix
    from nbtune.models.base import Base

__all__ = ["Decoding", "ends_of", "generate_chunk"]

_PLAIN: Final = {"num_beams": 1, "min_length": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
"""Said, because else a model's generation_config.json decides: that of bart-large-cnn asks for beams and a least length."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; the same for all columns of a grid."""

    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None

    def __str__(self) -> str:
        stops = f", stopping at {', '.join(map(repr, self.stop))}" if self.stop else ""
        form = f", {self.constraint.said}" if self.constraint is not None else ""
        return f"greedy, at most {self.max_new_tokens} tokens{stops}{form}"

    @property
    def key(self) -> list[Any]:
        """What decides an answer, as JSON can hold it."""
        return [self.max_new_tokens, list(self.stop), *([] if self.constraint is None else [self.constraint.grammar])]


def generate_chunk(
    base: Base,
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    prefix: Prefix,
    opening: Sequence[int] = (),
    *,
    stops: Sequence[int] = (),
    told: Callable[[str], object],
) -> list[str]:
    """The continuations of `prompts` (token ids), or with an `opening` what a decoder writes behind that; the caller holds the lease.

    A token of `stops` ends each, or one that the model itself ends with. At each token `told` hears what the first of them that goes on
    says so far; what it raises ends the work.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    tokenizer = base.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    own = [list(prompt[prefix.length :]) for prompt in prompts]
    width = max(len(row) for row in own)
    ids, mask = [], []
    for row in own:
        pads = [pad] * (width - len(row))
        ids.append([*prefix.ids, *_beside(row, pads, right=bool(opening))])
        mask.append([1] * prefix.length + _beside([1] * len(row), [0] * len(pads), right=bool(opening)))
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=sorted({*stops, *ends_of(base.model)}) or None,
        pad_token_id=pad,
        use_cache=True,
        **_PLAIN,
    )
    begin = len(opening) or prefix.length + width
    criteria: list[Any] = [_Heard(tokenizer, pad, decoding.stop, begin, told)]
    criteria += [_StopTexts(tokenizer, decoding.stop, begin)] if decoding.stop else []
    held = [] if decoding.constraint is None else [Constrained(tokenizer, decoding.constraint, begin)]
    model: Any = base.model
    more = {"decoder_input_ids": torch.tensor([opening] * len(own), device=base.device)} if opening else {}
    made = model.generate(
        input_ids=torch.tensor(ids, device=base.device),
        attention_mask=torch.tensor(mask, device=base.device),
        past_key_values=prefix.fresh(len(own)),
        generation_config=settings,
        logits_processor=LogitsProcessorList(held),
        stopping_criteria=StoppingCriteriaList(criteria),
        **more,
    )
    texts = tokenizer.batch_decode(made[:, begin:], skip_special_tokens=True)
    return [_cut(str(text), decoding.stop) for text in texts]


def ends_of(model: Any) -> tuple[int, ...]:
    """The tokens that end what a model writes, by its generation_config.json: an instructed one may name the end of a turn there, too."""
    said = getattr(model, "generation_config", None)
    ends = getattr(said, "eos_token_id", None)
    return () if ends is None else tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def _beside(row: Sequence[int], pads: Sequence[int], *, right: bool) -> list[int]:
    """A row and its padding: on the left, where its continuation follows, or on the right."""
    return [*row, *pads] if right else [*pads, *row]


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


class _Heard:
    """Tells at each token what the first row that goes on says so far; it ends nothing."""

    def __init__(self, tokenizer: Any, pad: int, stops: Sequence[str], start: int, told: Callable[[str], object]) -> None:
        self.tokenizer, self.pad, self.stops, self.start, self.told = tokenizer, pad, tuple(stops), start, told

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        import torch

        going = (input_ids[:, -1] != self.pad).tolist()
        row = input_ids[going.index(True) if any(going) else 0, self.start :]
        self.told(_cut(str(self.tokenizer.decode(row, skip_special_tokens=True)), self.stops))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
