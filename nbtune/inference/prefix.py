"""The part that all prompts begin with (few-shot examples, an instruction) goes through the model once, and is kept as a cache."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nbtune.models.families import can_pack

if TYPE_CHECKING:
    from nbtune.models.base import Base

__all__ = ["Prefix", "shared_prefix"]

WORTH_IT: Final = 32
"""Tokens from which a cache pays for its copying."""


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the first `length` tokens; nothing where prompts share too little."""

    ids: tuple[int, ...] = ()
    cache: Any = field(default=None, repr=False)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self.ids)

    @classmethod
    def of(cls, base: Base, ids: Sequence[int]) -> Prefix:
        """Runs `ids` through the base (leased by the caller); an empty prefix where the family cannot go on from a cache here."""
        import torch
        from transformers import DynamicCache

        if not can_pack(base.config):
            return cls()
        cache = DynamicCache(config=base.config)
        tokens = torch.tensor([list(ids)], device=base.device)
        decoder = base.model.get_decoder()
        decoder(input_ids=tokens, past_key_values=cache, use_cache=True)
        return cls(tuple(ids), cache)

    def fresh(self, rows: int = 1) -> Any:
        """A copy to go on from, for `rows` rows at once; None where there is no prefix."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        if rows > 1:
            cache.batch_repeat_interleave(rows)
        return cache


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all of at least two prompts begin with, leaving one of each; 0 where it is not worth a cache.

    Cut in token ids, so at a token boundary: cutting the text would change how it is tokenized.
    """
    if len(prompts) < 2:  # noqa: PLR2004
        return 0
    common = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        common = next((place for place in range(common) if prompt[place] != prompts[0][place]), common)
    return common if common >= WORTH_IT else 0
