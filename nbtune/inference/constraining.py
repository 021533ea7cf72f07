"""Answers that have to keep a form: one of several texts, a JSON schema, a regular expression.

At each step the tokens that would leave the form get no probability (Willard and Louf 2023, https://arxiv.org/abs/2307.09702); llguidance
says which. A space may stand before the form, because prompts end in front of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

from nbtune.errors import ModelError, SpecError

if TYPE_CHECKING:
    import torch

__all__ = ["Constrained", "Constraint"]

_SPACE: Final = "/ ?/"
_SLASH: Final = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""A slash that nothing escapes, which would end the expression."""


@dataclass(frozen=True)
class Constraint:
    """The form as llguidance reads it, and how it is said to people."""

    grammar: str
    said: str = field(compare=False)

    @classmethod
    def of(
        cls, choices: Sequence[str] | None = None, json_schema: Mapping[str, Any] | None = None, regex: str | None = None
    ) -> Self | None:
        """What was asked for, checked; None where nothing was.

        Raises:
            SpecError: more than one of them, or a form that cannot be read.
        """
        told = {"choices": choices, "json_schema": json_schema, "regex": regex}
        named = [name for name, value in told.items() if value is not None]
        if not named:
            return None
        if len(named) > 1:
            raise SpecError(f"decoding has {' and '.join(named)}, and an answer has one form", hint=f"leave {named[-1]} out")
        if choices is not None:
            if not choices or not all(text.strip() for text in choices):
                raise SpecError(f"choices are {list(choices)!r:.80}, and an answer has to be one of them", hint="give texts, none empty")
            form, said = " | ".join(json.dumps(text.strip(), ensure_ascii=False) for text in choices), f"one of {len(choices)} choices"
        elif json_schema is not None:
            form, said = f"%json {json.dumps({**_COMPACT, **json_schema})}", "JSON by a schema"
        else:
            form, said = "/" + _SLASH.sub(r"\1\\/", str(regex)) + "/", f"as /{regex}/"
        grammar = f"start: SPACE form\nSPACE: {_SPACE}\nform: {form}\n"
        from llguidance import LLMatcher

        failed = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar), None)
        if failed:
            reason = " ".join(str(failed).split()).partition(" 1 | start:")[0]
            raise SpecError(f"{named[0]} of decoding cannot be followed: {reason:.200}", hint=_HINTS[named[0]])
        return cls(grammar, said)


_COMPACT: Final = {"x-guidance": {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}}
"""A small model that may write any number of spaces writes nothing else."""
_HINTS: Final = {
    "choices": "give texts",
    "json_schema": "write a JSON schema of what an answer is: {type: object, properties: ...}",
    "regex": "write a regular expression of whole answers, without anchors, look-around and back references",
}


@lru_cache(maxsize=4)
def _reader(tokenizer: Any, vocabulary: int) -> Any:
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=vocabulary)


class Constrained:
    """A processor of logits for `model.generate`: of each row of a batch whose new tokens begin at `begin`."""

    def __init__(self, tokenizer: Any, constraint: Constraint, begin: int) -> None:
        self._tokenizer, self._constraint, self._begin = tokenizer, constraint, begin
        self._rows: list[Any] = []
        self._vocabulary = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores [rows, vocabulary] with -inf where a token would leave the form."""
        import torch

        if not self._rows:
            self._vocabulary = scores.shape[-1]
            self._rows = self._matchers(len(input_ids), self._vocabulary)
        new = input_ids[:, self._begin :]
        allowed = torch.stack([self._allowed(row, new[number]) for number, row in enumerate(self._rows)])
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))

    def _matchers(self, rows: int, vocabulary: int) -> list[Any]:
        from llguidance import LLMatcher

        try:
            reader = _reader(self._tokenizer, vocabulary)
        except (TypeError, ValueError, AttributeError) as error:
            kind = type(self._tokenizer).__name__
            message = f"answers cannot be held to a form: llguidance cannot read this model's tokenizer ({kind}): {error}"
            raise ModelError(message, hint="use a model with a fast tokenizer, or leave the form out of decoding") from error
        return [LLMatcher(reader, LLMatcher.grammar_from_lark(self._constraint.grammar)) for _ in range(rows)]

    def _allowed(self, row: Any, new: torch.Tensor) -> torch.Tensor:
        """Which tokens may follow, bool [vocabulary]; behind the form's end only an end of sequence.

        A token that may not is the padding of a row that a stop text has ended; what follows there is of no matter.
        """
        import numpy as np
        import torch

        if len(new) and not row.is_stopped() and not row.validate_tokens([int(new[-1])]):
            return torch.ones(self._vocabulary, dtype=torch.bool)
        if len(new) and not row.is_stopped():
            row.consume_token(int(new[-1]))
        bits = np.unpackbits(np.frombuffer(row.compute_bitmask(), dtype=np.uint8), bitorder="little").astype(bool)
        return torch.from_numpy(bits[: self._vocabulary])
