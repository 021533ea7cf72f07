"""What a tokenizer's chat template makes of turns: their text, what ends an answer in it, and where earlier answers stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nbtune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["answers_in", "closing_of", "said"]

Turns = Sequence[Mapping[str, str]]

_ASKED, _ANSWERED = "question", "answered"
"""What no template changes."""


def said(tokenizer: PreTrainedTokenizerBase, turns: Turns, *, asks: bool) -> str:
    """The turns as the chat template writes them; with `asks` the assistant is to go on, and answers without thinking aloud first.

    Raises:
        DataError: it refuses them.
    """
    try:
        plain = [dict(turn) for turn in turns]
        return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=asks, enable_thinking=False))
    except Exception as error:  # a template is a program of its own, and may raise anything
        roles = ", ".join(turn["role"] for turn in turns)
        message = f"the chat template refuses a conversation of {roles}: {error}"
        raise DataError(message, hint="some templates know no system turn, or want user and assistant to take turns") from error


def closing_of(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids behind the assistant's words: the template's own mark (Gemma's <end_of_turn>), else its text and the end of sequence.

    () where there is neither a mark nor an end of sequence: by nothing else would a model know that it is to stop.
    """
    end = (tokenizer.eos_token_id,) if isinstance(tokenizer.eos_token_id, int) else ()
    turns = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
    text = said(tokenizer, turns, asks=False).rpartition(_ANSWERED)[2].strip()
    ids = tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    first = next((place for place, token in enumerate(ids) if token in marks), None)
    if first is None:
        return (*ids, *end) if end else ()
    return ids[: first + 1]


def answers_in(tokenizer: PreTrainedTokenizerBase, text: str, turns: Turns, learnt: Sequence[bool]) -> list[tuple[int, int]]:
    """Where in `text`, which begins with these turns, those answers stand that are `learnt`, as (from, to), with the marks that end them.

    An answer that the template opens with thoughts where it is the last, and without them later, is found behind its heading. Nothing,
    where one is written in another way than it was given.
    """
    spans = []
    for number in (number for number, wanted in enumerate(learnt) if wanted and number):  # a template writes no turns of no turns
        begin, whole = said(tokenizer, turns[:number], asks=True), said(tokenizer, turns[: number + 1], asks=False).rstrip()
        if not text.startswith(whole) or not whole.startswith(begin):
            before, answer = said(tokenizer, turns[:number], asks=False), turns[number]["content"].strip()
            begin = begin[: next((place for place, (one, other) in enumerate(zip(begin, text, strict=False)) if one != other), None)]
            closing = whole.rpartition(answer)[2]
            whole = begin + answer + closing
            if not answer or len(begin) <= len(before) or not text.startswith(whole):
                return []
        spans.append((len(begin), len(whole)))
    return spans
