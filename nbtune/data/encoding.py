"""From text to tokens: what a prompt and its answer become, and which tokens are trained. Takes a tokenizer, knows no model.

One function encodes a prompt for training, scoring and generating alike, so that a model is asked as it was taught.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from nbtune.data.chat import answers_in, closing_of, said
from nbtune.data.conversations import Conversation
from nbtune.data.encoded import Answered, Answering, Dialogue, Encoded, Labelled, Reading, Spans, Tagged, Tagging, Texts, pieces_of
from nbtune.data.instructions import Instruction
from nbtune.data.masking import Masking, masked_rows
from nbtune.data.pairs import Pair
from nbtune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Encoder", "TokenView", "encode_dev", "encode_rows", "token_view"]


@dataclass(frozen=True)
class TokenView:
    """What a task looks like in tokens: lengths in words for people, and a few rows as (text, trained) pieces."""

    lengths_text: str
    marked: tuple[tuple[tuple[str, bool], ...], ...]


@dataclass(frozen=True)
class Encoder:
    """Encodes the prompts and answers of one task with one tokenizer.

    With `chat` the prompt is the user's turn of the tokenizer's chat template (after `system`), and the answer the assistant's; the
    answer's outer spaces are dropped there, because the template sets its own, and it ends as the template ends a turn. `first` are ids
    that stand before every prompt; of instructions the prompts of `sets` have as many of their own, which follow those, set by set.
    With `reading` a row is a text and its class, or its words and their tags, and nothing is written; with `Texts` it is a piece of a text;
    with `Answering` the answer is a text of its own, which a decoder writes, and its outer spaces are dropped as well.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool = False
    system: str | None = None
    first: tuple[int, ...] = ()
    reading: Reading | Tagging | Texts | Masking | Answering | None = None
    sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.chat and not self.tokenizer.chat_template:
            message = f"chat is on, and the tokenizer of {self.tokenizer.name_or_path!r} has no chat template"
            raise DataError(message, hint="set chat: false and leave system out, or use a model tuned for chat")

    @property
    def joined(self) -> bool:
        """Whether an answer continues the text of its prompt: no chat template stands between them, and one sequence holds both."""
        return not self.chat and not isinstance(self.reading, Answering)

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """What a decoder beside an encoder begins each answer with: its start, and the marks that the tokenizer puts before a text.

        These marks (the BOS of BART, the language of mBART-50) are given, as `forced_bos_token_id` gives them. Without such a decoder: ().
        """
        if not isinstance(self.reading, Answering):
            return ()
        marks = [int(token) for token in self.tokenizer(text_target="")["input_ids"]]
        end = self.tokenizer.eos_token_id
        return (self.reading.decoder_start, *(marks[: marks.index(end)] if end in marks else ()))

    def prompt_text(self, prompt: str) -> str:
        """The whole text that the model reads before it answers, special tokens of a chat template included."""
        if not self.chat:
            return prompt
        return said(self.tokenizer, self._turns(prompt), asks=True)

    def _turns(self, prompt: str) -> list[dict[str, str]]:
        """What stands before the answer, the task's system text first where the conversation has none of its own."""
        turns = [*prompt.turns] if isinstance(prompt, Conversation) else [{"role": "user", "content": prompt}]
        if self.system is not None and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self.system})
        return turns

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt, with the tokenizer's BOS where it has one, and never an EOS but for an encoder."""
        return [*self.first_of(prompt), *self._ids(self.prompt_text(prompt), special=not self.chat)]

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer: those that close it, and those that begin a new line."""
        return tuple(sorted({*_line_breaks(self.tokenizer), *self.stops}))

    @cached_property
    def closing(self) -> tuple[int, ...]:
        """What follows an answer and is trained with it: the end of sequence, or what a chat template ends a turn with; () for neither."""
        if self.chat and not self.opening:
            return closing_of(self.tokenizer)
        end = self.tokenizer.eos_token_id
        return (end,) if isinstance(end, int) else ()

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens of which each alone ends what is written: the end of sequence, and the last of `closing`."""
        end = self.tokenizer.eos_token_id
        return tuple(sorted({*self.closing[-1:], *((end,) if isinstance(end, int) else ())}))

    def first_of(self, prompt: str) -> tuple[int, ...]:
        """The ids that stand before this prompt."""
        if not isinstance(prompt, Instruction) or prompt.set_name not in self.sets:
            return self.first
        return self.asking(prompt.set_name).first

    def asking(self, set_name: str) -> Encoder:
        """This encoder for the prompts of one of `sets` alone, which need not tell that they are: a task of that set."""
        beyond = (1 + self.sets.index(set_name)) * len(self.first)
        return replace(self, first=tuple(number + beyond for number in self.first), sets=())

    def answer_ids(self, prompt: str, answer: str) -> list[int]:
        """Token ids of an answer that follows `prompt`.

        Where encoding both together leaves the prompt's ids as they are, the rest is the answer: then a tokenizer that
        marks the start of words cannot put a space where there is none. Else the answer is encoded alone.
        """
        text = self.prompt_text(prompt)
        return self._after(text, self._ids(text, special=not self.chat), answer)

    def row(self, prompt: str, answer: str, *, max_length: int, where: str = "row") -> Encoded:
        """A training row: prompt, answer, and what closes it.

        A row longer than `max_length` loses the beginning of its prompt, but for a BOS, and never a token of its answer.

        Raises:
            DataError: the answer has no tokens or alone is longer than `max_length`, or the tokenizer has no EOS.
        """
        whole = self.whole(prompt, answer)
        room = max_length - len(self.first)
        if not self.closing:
            message = "the tokenizer has no end-of-sequence token, so a model could not learn to stop"
            raise DataError(message, hint="set tokenizer.eos_token before binding the model")
        if whole.num_last <= len(self.closing):
            raise DataError(f"{where}: the completion {answer!r} has no tokens", hint="check the completion template")
        if whole.num_last >= room:
            taken = f", of which a soft prompt takes {len(self.first)}" if self.first else ""
            own = whole.num_last - len(self.closing)
            message = f"{where}: the completion alone has {own} tokens, and max_length is {max_length}{taken}"
            raise DataError(message, hint=f"set max_length to {len(self.first) + len(whole.ids)} or more")
        return whole.cut(room, self.tokenizer.bos_token_id).behind(self.first_of(prompt))

    def labelled(self, prompt: str, answer: str) -> Labelled:
        """A text (a `Pair`: two of them, for a model that sees both ways) and what its head is to say, at full length, without `first`.

        Raises:
            DataError: the encoder has no `reading`, or the answer is none that its head can give.
        """
        how = self.reading
        target = how.target(answer) if isinstance(how, Reading) else None
        if not isinstance(how, Reading) or target is None:
            known = ", ".join(how.labels) if isinstance(how, Reading) else "those of a head, which there is not"
            message = f"the label {answer!r} is none of {known}"
            raise DataError(message, hint="list all classes in labels: of the task")
        weight = how.weights[target] if how.weights is not None and isinstance(target, int) else 1.0
        if isinstance(prompt, Pair) and how.both_ways and not self.chat:
            ids, spans = self._both(prompt)
            return Labelled(ids, 0, target, how.pooling, weight, spans)
        return Labelled(tuple(self._ids(self.prompt_text(prompt), special=not self.chat)), 0, target, how.pooling, weight)

    def _both(self, pair: Pair) -> tuple[tuple[int, ...], Spans]:
        """The ids of two texts with the tokenizer's marks round and between them, and where the tokens of each stand.

        Raises:
            DataError: the tokenizer cannot tell where.
        """
        if not self.tokenizer.is_fast:
            raise DataError("the tokenizer cannot tell two texts apart", hint="use a model with a fast tokenizer")
        said = self.tokenizer(pair.first, pair.second, verbose=False)
        of = said.sequence_ids()
        places = [[place for place, number in enumerate(of) if number == which] for which in (0, 1)]
        begin = places[0][0] if places[0] else next((place for place, number in enumerate(of) if number is None), 0) + 1
        other = places[1][0] if places[1] else len(of) - 1
        spans = (begin, begin + len(places[0])), (other, other + len(places[1]))
        return tuple(int(token) for token in said["input_ids"]), spans

    def tagged(self, text: str, tags: str) -> tuple[Tagged, tuple[int, ...]]:
        """A text of words and its tags, both divided by spaces, at full length, without `first`; and which of its words have tokens at all.

        A word's first token is the first whose characters are among its own; what a tokenizer leaves out (a mark without width) has none.

        Raises:
            DataError: the encoder tags nothing, a tag is none of its labels, or the tokenizer cannot tell where its tokens stand.
        """
        how, words, names = self.reading, text.split(" "), tags.split(" ")
        stray = next((name for name in names if not isinstance(how, Tagging) or name not in how.labels), None)
        if not isinstance(how, Tagging) or stray is not None:
            raise DataError(f"the tag {stray!r} is none of the task's", hint="list all tags in labels: of the task")
        if not self.tokenizer.is_fast:
            raise DataError("the tokenizer cannot tell where in a text its tokens stand", hint="use a model with a fast tokenizer")
        said = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        ends = list(accumulate(len(word) + 1 for word in words))
        first: dict[int, int] = {}
        for place, (begin, end) in enumerate(said["offset_mapping"]):
            begin += len(text[begin:end]) - len(text[begin:end].lstrip(" "))  # noqa: PLW2901  some count the space before a word in
            if begin < end:
                first.setdefault(bisect_right(ends, begin), place)
        there = tuple(sorted(first))
        numbers = tuple(how.labels.index(names[word]) for word in there)
        ids = tuple(int(token) for token in said["input_ids"])
        return Tagged(ids, 0, tuple(first[word] for word in there), numbers), there

    def text(self, text: str) -> Encoded:
        """A whole text, its BOS where there is one and its end of sequence, without `first`; all but the first token is trained."""
        end = self.tokenizer.eos_token_id
        return Encoded((*self._ids(text, special=True), *((end,) if isinstance(end, int) else ())), 1)

    def whole(self, prompt: str, answer: str) -> Encoded:
        """Prompt, answer and what closes it, at full length, without `first`; nothing is checked."""
        text = self.prompt_text(prompt)
        if isinstance(prompt, Conversation) and self.chat and not self.opening:
            return self._dialogue(prompt, text, answer)
        before = self._ids(text, special=not self.chat)
        ids = (*before, *self._after(text, before, answer), *self.closing)
        return Answered(ids, len(before), self.opening) if self.opening else Encoded(ids, len(before))

    def _dialogue(self, prompt: Conversation, text: str, answer: str) -> Dialogue:
        """All turns, of which the assistant's are trained, each with the mark that ends it.

        Earlier answers stand where the template puts them in the whole: a token is trained that begins inside one. Where it writes them
        in another way than when they were given (thoughts that are left out later), only the last answer is trained.
        """
        before = self._ids(text, special=False)
        last = (*self._after(text, before, answer), *self.closing)
        trained = tuple(range(len(before), len(before) + len(last)))
        return Dialogue((*before, *last), len(before), (*self._earlier(prompt, text), *trained))

    def _earlier(self, prompt: Conversation, text: str) -> list[int]:
        """The places in `text` of what the assistant has said before."""
        turns = self._turns(prompt)
        spans = answers_in(self.tokenizer, text, turns, [False] * (len(turns) - len(prompt.turns)) + list(prompt.learnt))
        if not spans or not self.tokenizer.is_fast:  # the others cannot tell where their tokens stand
            return []
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [place for place, (begin, end) in enumerate(offsets) if begin < end and any(low <= begin < high for low, high in spans)]

    def view(self, examples: Sequence[Any], *, max_length: int = 512, rows: int = 2, most: int = 2000) -> TokenView:
        """Token lengths of (at most `most`) examples, and the first `rows` of them token by token."""
        texts = isinstance(self.reading, Texts)
        encoded = [
            self.text(item.prompt) if texts else self.row(item.prompt, item.completion, max_length=1 << 30) for item in examples[:most]
        ]
        lengths = sorted(len(item.ids) for item in encoded)
        over = sum(length > max_length for length in lengths)
        text = f"{lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}"
        if over:
            lost = "are learnt in pieces" if texts else "would lose the beginning of their prompt"
            text += f"; {over} of {len(lengths)} are over max_length {max_length} and {lost}"
        return TokenView(text, tuple(self.pieces(item) for item in encoded[:rows]))

    def pieces(self, row: Encoded) -> tuple[tuple[str, bool], ...]:
        """The row token by token, as (text, whether it is trained)."""
        decode = self.tokenizer.decode
        return tuple((str(decode([token], skip_special_tokens=False)), row.trains(place)) for place, token in enumerate(row.ids))

    def _after(self, text: str, before: list[int], answer: str) -> list[int]:
        """The ids of an answer behind the text whose ids are `before`."""
        if not self.joined:
            answer = answer.strip()
        if self.opening:
            return self._ids(answer, special=False)
        both = self._ids(text + answer, special=not self.chat)
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
        return self._ids(answer, special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if not text:
            return []
        ids = [int(token) for token in self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]]
        closes = bool(self.opening) or (isinstance(self.reading, Reading) and self.reading.both_ways)
        if special and not closes and ids and ids[-1] == self.tokenizer.eos_token_id and not text.endswith(str(self.tokenizer.eos_token)):
            ids.pop()
        return ids


def encode_rows(encoder: Encoder, examples: Sequence[Any], *, max_length: int) -> tuple[list[Encoded], int]:
    """All rows, and how many lost the beginning of their prompt to `max_length`; of texts all pieces, and none loses anything.

    Raises:
        DataError: a row cannot be trained on (see `Encoder.row`), or begins with two BOS tokens.
    """
    if isinstance(encoder.reading, Masking):
        texts = [item.prompt for item in examples]
        room = max_length - len(encoder.first)
        return [row.behind(encoder.first) for row in masked_rows(encoder.tokenizer, texts, encoder.reading, room)], 0
    rows: list[Encoded] = []
    cut = 0
    begin = encoder.tokenizer.bos_token_id
    for item in examples:
        if isinstance(encoder.reading, Texts):
            found = pieces_of(encoder.text(item.prompt), max_length - len(encoder.first))
            rows += [piece.behind(encoder.first) for piece in found if piece.num_trained]
            continue
        if isinstance(encoder.reading, Reading | Tagging):
            tags = isinstance(encoder.reading, Tagging)
            whole = encoder.tagged(item.prompt, item.completion)[0] if tags else encoder.labelled(item.prompt, item.expected)
            room = max_length - len(encoder.first)
            rows.append(whole.cut(room, begin).behind(encoder.first))
            cut += len(whole.ids) > room
            continue
        row = encoder.row(item.prompt, item.completion, max_length=max_length, where=f"{item.split} row {item.index}")
        if begin is not None and row.ids[len(encoder.first) :][:2] == (begin, begin):
            message = f"{item.split} row {item.index} begins with two BOS tokens: the template and the tokenizer both add one"
            raise DataError(message, hint=f"take {encoder.tokenizer.bos_token!r} out of the template")
        cut += len(row.ids) == max_length and len(encoder.prompt_ids(item.prompt)) > row.start
        rows.append(row)
    return rows, cut


@lru_cache(maxsize=4)
def _line_breaks(tokenizer: Any) -> tuple[int, ...]:
    """The tokens whose text begins with a line break, the special ones left out."""
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return tuple(token for token, text in enumerate(texts) if text[:1] in ("\n", "\r") and token not in special)


def encode_dev(encoder: Encoder, examples: Sequence[Any], *, max_length: int) -> tuple[Encoded, ...]:
    """The rows that are looked at again and again: what chance has a part in is the same each time.

    Raises:
        DataError: as `encode_rows`.
    """
    rows, _ = encode_rows(encoder, examples, max_length=max_length)
    return tuple(row.drawn(f"dev:{number}") for number, row in enumerate(rows))


def token_view(task: Any, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512) -> TokenView:
    """What a task looks like in a tokenizer's tokens: lengths, and its first training rows with the trained tokens told apart."""
    reading = Texts() if task.kind == "text" else None
    return Encoder(tokenizer, task.uses_chat, task.system, reading=reading).view(task.train, max_length=max_length)
