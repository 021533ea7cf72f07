"""A text that a model should not forget, in pieces that it can be asked to predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from nbtune.data.encoded import Encoded
from nbtune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nbtune.spec import FinetuneSpec

__all__ = ["GENERAL", "pieces_of", "read_retained", "rehearsed", "rehearsed_rows", "rehearsed_width"]

GENERAL: Final = "general"
_WIDTH: Final = 256
_MOST: Final = 4096
"""Tokens in all: enough to tell a hundredth of a nat, and a second or two on a CPU."""
_LEAST: Final = 16
_REHEARSED_WIDTH: Final = 128


def rehearsed_rows(spec: FinetuneSpec) -> int:
    """How many pieces are rehearsed in an optimizer step: to the task's rows as many as `replay` says, to watch them a tenth."""
    return max(1, round((spec.replay or 0.1) * spec.step_rows))


def rehearsed_width(spec: FinetuneSpec, num_first: int) -> int:
    """Most tokens of such a piece behind `num_first` ids of a soft prompt."""
    return min(_REHEARSED_WIDTH, spec.max_length - num_first)


def read_retained(name: str) -> str:
    """The text called `general`, or that of a UTF-8 file.

    Raises:
        DataError: there is no such file, it is no text, or it is empty.
    """
    path = Path(__file__).with_name("general.txt") if name == GENERAL else Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"retain: {name!r} cannot be read: {reason}", hint="name a text file, or say general") from error
    if not text.strip():
        raise DataError(f"retain: {name!r} holds no text", hint="name a text file, or say general")
    return text


def rehearsed(name: str, tokenizer: PreTrainedTokenizerBase, first: tuple[int, ...], width: int) -> list[Encoded]:
    """What of that text may be trained on, because its loss is not measured there, in pieces of up to `width` tokens behind `first`.

    Of a file that is all beyond its first 4,096 tokens; `general` has another text for it.

    Raises:
        DataError: the file cannot be read, or has no more than is measured.
    """
    path = Path(__file__).with_name("rehearsal.txt")
    text = path.read_text(encoding="utf-8") if name == GENERAL else read_retained(name)
    ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    ids = ids if name == GENERAL else ids[_MOST:]
    if len(ids) < _LEAST:
        message = f"retain: {name!r} has no more than the {_MOST:,} tokens on which its loss is measured, so nothing is left to rehearse"
        raise DataError(message, hint="name a longer text, or retain: general")
    return _pieces(ids, tokenizer, first, width)


def pieces_of(text: str, tokenizer: PreTrainedTokenizerBase, first: tuple[int, ...] = ()) -> list[Encoded]:
    """At most 4,096 tokens of the text in pieces of up to 256, each behind `first` and the BOS token, where there is one.

    All tokens are predicted but the first of a piece that nothing stands before.

    Raises:
        DataError: it has fewer than 16 tokens.
    """
    ids = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]][:_MOST]
    if len(ids) < _LEAST:
        raise DataError(f"retain: the text has {len(ids)} tokens, too few to tell anything", hint=f"give it {_LEAST} or more")
    return _pieces(ids, tokenizer, first, _WIDTH)


def _pieces(ids: list[int], tokenizer: PreTrainedTokenizerBase, first: tuple[int, ...], width: int) -> list[Encoded]:
    begin = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
    pieces = (ids[at : at + width] for at in range(0, len(ids), width))
    ahead = (*first, *begin)
    return [Encoded((*ahead, *piece), max(1, len(ahead) + (not begin))) for piece in pieces if len(piece) > 1]
