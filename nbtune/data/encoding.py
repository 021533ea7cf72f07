"""From text to tokens: what a prompt and its answer become, and which tokens are trained. Takes a tokenizer, knows no model.

One function encodes a prompt for training, scoring and generating alike, so that a model is asked as it was taught.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbtune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoded", "Encoder", "TokenView", "encode_rows", "token_view"]


@dataclass(frozen=True)
class Encoded:
    """One row as token ids; the answer begins at `start` and only it is trained."""

    ids: tuple[int, ...]
    start: int

    @property
    def num_trained(self) -> int:
        """Trained tokens: the answer's and the end of sequence."""
        return len(self.ids) - self.start

    def behind(self, first: Sequence[int]) -> Encoded:
        """The row with these ids in front of its prompt."""
        return Encoded((*first, *self.ids), self.start + len(first)) if first else self

    def cut(self, max_length: int, bos: int | None) -> Encoded:
        """The row within `max_length`, without the beginning of its prompt's text where it is longer; a BOS that opens it stays.

        At least one token of the prompt has to stay: the caller sees to it that there is room.
        """
        over = max(0, len(self.ids) - max_length)
        kept = int(bos is not None and self.ids[:1] == (bos,))
        return Encoded((*self.ids[:kept], *self.ids[kept + over :]), self.start - over)


@dataclass(frozen=True)
class TokenView:
    """What a task looks like in tokens: lengths in words for people, and a few rows as (text, trained) pieces."""

    lengths_text: str
    marked: tuple[tuple[tuple[str, bool], ...], ...]


@dataclass(frozen=True)
class Encoder:
    """Encodes the prompts and answers of one task with one tokenizer.

    With `chat` the prompt is the user's turn of the tokenizer's chat template (after `system`), and the answer the assistant's;
    the answer's outer spaces are dropped there, because the template sets its own. `first` are ids that stand before every prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool = False
    system: str | None = None
    first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.chat and not self.tokenizer.chat_template:
            message = f"chat is on, and the tokenizer of {self.tokenizer.name_or_path!r} has no chat template"
            raise DataError(message, hint="set chat: false and leave system out, or use a model tuned for chat")

    def prompt_text(self, prompt: str) -> str:
        """The whole text that the model reads before it answers, special tokens of a chat template included."""
        if not self.chat:
            return prompt
        turns = [{"role": "user", "content": prompt}]
        if self.system is not None:
            turns.insert(0, {"role": "system", "content": self.system})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt, with the tokenizer's BOS where it has one, and never an EOS."""
        return [*self.first, *self._ids(self.prompt_text(prompt), special=not self.chat)]

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """Token ids of an answer that follows `prompt`.

        Where encoding both together leaves the prompt's ids as they are, the rest is the answer: then a tokenizer that
        marks the start of words cannot put a space where there is none. Else the answer is encoded alone.
        """
        text = self.prompt_text(prompt)
        return self._after(text, self._ids(text, special=not self.chat), answer)

    def row(self, prompt: str, answer: str, *, max_length: int, where: str = "row") -> Encoded:
        """A training row: prompt, answer, end of sequence.

        A row longer than `max_length` loses the beginning of its prompt, but for a BOS, and never a token of its answer.

        Raises:
            DataError: the answer has no tokens or alone is longer than `max_length`, or the tokenizer has no EOS.
        """
        whole = self.whole(prompt, answer)
        room = max_length - len(self.first)
        if not isinstance(self.tokenizer.eos_token_id, int):
            message = "the tokenizer has no end-of-sequence token, so a model could not learn to stop"
            raise DataError(message, hint="set tokenizer.eos_token before binding the model")
        if whole.num_trained < 2:  # noqa: PLR2004  the end of sequence alone
            raise DataError(f"{where}: the completion {answer!r} has no tokens", hint="check the completion template")
        if whole.num_trained >= room:
            taken = f", of which a soft prompt takes {len(self.first)}" if self.first else ""
            message = f"{where}: the completion alone has {whole.num_trained - 1} tokens, and max_length is {max_length}{taken}"
            raise DataError(message, hint=f"set max_length to {len(self.first) + len(whole.ids)} or more")
        return whole.cut(room, self.tokenizer.bos_token_id).behind(self.first)

    def whole(self, prompt: str, answer: str) -> Encoded:
        """Prompt, answer and end of sequence (where the tokenizer has one) at full length, without `first`; nothing is checked."""
        text = self.prompt_text(prompt)
        before = self._ids(text, special=not self.chat)
        end = self.tokenizer.eos_token_id
        return Encoded((*before, *self._after(text, before, answer), *((end,) if isinstance(end, int) else ())), len(before))

    def view(self, examples: Sequence[Any], *, max_length: int = 512, rows: int = 2, most: int = 2000) -> TokenView:
        """Token lengths of (at most `most`) examples, and the first `rows` of them token by token."""
        encoded = [self.row(item.prompt, item.completion, max_length=1 << 30) for item in examples[:most]]
        lengths = sorted(len(item.ids) for item in encoded)
        over = sum(length > max_length for length in lengths)
        text = f"{lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}"
        if over:
            text += f"; {over} of {len(lengths)} are over max_length {max_length} and would lose the beginning of their prompt"
        return TokenView(text, tuple(self.pieces(item) for item in encoded[:rows]))

    def pieces(self, row: Encoded) -> tuple[tuple[str, bool], ...]:
        """The row token by token, as (text, whether it is trained)."""
        decode = self.tokenizer.decode
        return tuple((str(decode([token], skip_special_tokens=False)), place >= row.start) for place, token in enumerate(row.ids))

    def _after(self, text: str, before: list[int], answer: str) -> list[int]:
        """The ids of an answer behind the text whose ids are `before`."""
        if self.chat:
            answer = answer.strip()
        both = self._ids(text + answer, special=not self.chat)
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
        return self._ids(answer, special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if not text:
            return []
        ids = [int(token) for token in self.tokenizer(text, add_special_tokens=special)["input_ids"]]
        if special and ids and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(str(self.tokenizer.eos_token)):
            ids.pop()
        return ids


def encode_rows(encoder: Encoder, examples: Sequence[Any], *, max_length: int) -> tuple[list[Encoded], int]:
    """All rows, and how many lost the beginning of their prompt to `max_length`.

    Raises:
        DataError: a row cannot be trained on (see `Encoder.row`), or begins with two BOS tokens.
    """
    rows: list[Encoded] = []
    cut = 0
    begin = encoder.tokenizer.bos_token_id
    for item in examples:
        row = encoder.row(item.prompt, item.completion, max_length=max_length, where=f"{item.split} row {item.index}")
        if begin is not None and row.ids[len(encoder.first) :][:2] == (begin, begin):
            message = f"{item.split} row {item.index} begins with two BOS tokens: the template and the tokenizer both add one"
            raise DataError(message, hint=f"take {encoder.tokenizer.bos_token!r} out of the template")
        cut += len(row.ids) == max_length and len(encoder.prompt_ids(item.prompt)) > row.start
        rows.append(row)
    return rows, cut


def token_view(task: Any, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512) -> TokenView:
    """What a task looks like in a tokenizer's tokens: lengths, and its first training rows with the trained tokens told apart."""
    return Encoder(tokenizer, task.uses_chat, task.system).view(task.train, max_length=max_length)
