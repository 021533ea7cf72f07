"""What is wrong with a task's rows as one tokenizer writes them: nothing to train, marks twice or missing, what does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nbtune.data.conversations import Conversation
from nbtune.data.encoded import Dialogue, Encoded, Reading, Tagging, Texts, pieces_of
from nbtune.data.encoding import Encoder
from nbtune.data.examples import Example
from nbtune.data.findings import Finding, place, quoted
from nbtune.data.masking import Masking, masked_rows

__all__ = ["Coded", "Limit", "code", "token_findings"]

_ENDS: Final = (*":;,.!?)]", "->", "=>", "→")
"""What ends a prompt so that a word that follows wants a space; after a quote or an opening bracket it wants none."""


@dataclass(frozen=True)
class Coded:
    """A row and its tokens at full length."""

    example: Example
    whole: Encoded
    num_answer: int

    def over(self, max_length: int) -> int:
        """Tokens that `max_length` takes from the beginning of the prompt; 0 where the completion itself does not fit."""
        return 0 if self.whole.num_last >= max_length else max(0, len(self.whole.ids) - max_length)


@dataclass(frozen=True)
class Limit:
    """Most tokens of a row: what was asked for, and what the model can read (None: it does not say)."""

    asked: int
    context: int | None = None

    @property
    def tokens(self) -> int:
        """What holds."""
        return self.asked if self.context is None else min(self.asked, self.context)

    def mend(self, needed: int) -> str:
        """What to do where rows need more."""
        if self.context is not None and needed > self.context:
            return f"shorten the texts: {needed:,} tokens are needed, and the model reads at most {self.context:,}"
        return f"set max_length to {needed} or more"


def code(encoder: Encoder, examples: Sequence[Example]) -> list[Coded]:
    """The examples as tokens, nothing cut and nothing refused."""
    if isinstance(encoder.reading, Texts):
        wholes = (encoder.text(item.prompt) for item in examples)
        return [Coded(item, whole, whole.num_trained) for item, whole in zip(examples, wholes, strict=True)]
    if isinstance(encoder.reading, Masking):
        alone = replace(encoder.reading, sentences=False)
        found = [masked_rows(encoder.tokenizer, [item.prompt], alone, 1 << 30) for item in examples]
        drawn = [rows[0].drawn("shown") if rows else Encoded((), 0) for rows in found]
        return [Coded(item, whole, whole.num_trained) for item, whole in zip(examples, drawn, strict=True)]
    if isinstance(encoder.reading, Tagging):
        rows = (encoder.tagged(item.prompt, item.completion)[0] for item in examples)
        return [Coded(item, row, row.num_trained) for item, row in zip(examples, rows, strict=True)]
    if isinstance(encoder.reading, Reading):
        return [Coded(item, encoder.labelled(item.prompt, item.expected), 1) for item in examples]
    ended = len(encoder.closing)
    wholes = (encoder.whole(item.prompt, item.completion) for item in examples)
    return [Coded(item, whole, whole.num_last - ended) for item, whole in zip(examples, wholes, strict=True)]


def token_findings(encoder: Encoder, rows: Sequence[Coded], limit: Limit) -> list[Finding]:
    """What there is to say of `rows`, which are trained (train) or asked during the training (dev)."""
    if isinstance(encoder.reading, Texts):
        return [*_doubled(encoder, rows), *_in_pieces(rows, limit), *_facts(encoder, limit)]
    if isinstance(encoder.reading, Masking):
        return [*_unreadable(rows), *_in_pieces(rows, limit)]
    if isinstance(encoder.reading, Tagging):
        return [*_wordless(rows), *_read_in_part(rows, limit)]
    if isinstance(encoder.reading, Reading):
        marks = len(encoder.labelled("", rows[0].example.expected).ids) if rows else 0
        return [*_unreadable(rows, marks), *_read_in_part(rows, limit)]
    return [
        *_untrainable(encoder, rows),
        *_unlearnt(encoder, rows),
        *_too_long(rows, limit),
        *_ends(encoder, rows),
        *_seams(encoder, rows),
        *_facts(encoder, limit),
    ]


def _untrainable(encoder: Encoder, rows: Sequence[Coded]) -> Iterator[Finding]:
    if not encoder.closing:
        what = "the tokenizer has no end-of-sequence token (EOS), so a model could not learn to stop"
        yield Finding("refuse", what, "set tokenizer.eos_token before binding the model")
    silent = [row for row in rows if row.num_answer == 0]
    if silent:
        what = f"the completion has no tokens in {_count(silent, rows)}, for one {silent[0].example.completion!r:.60}"
        yield Finding("refuse", what, "there is nothing to train: check the completion template, or drop these rows", _places(silent))
    blank = [row for row in rows if row.whole.start == 0]
    if blank:
        what = f"the prompt has no tokens in {_count(blank, rows)}, for one {blank[0].example.prompt!r:.60}"
        yield Finding("refuse", what, "there is nothing to answer: check the prompt template, or drop these rows", _places(blank))
    yield from _doubled(encoder, rows)


def _unlearnt(encoder: Encoder, rows: Sequence[Coded]) -> Iterator[Finding]:
    """Conversations of which the last answer alone is trained, though more of it should be."""
    if not encoder.chat or encoder.opening:
        return
    dialogues = [row for row in rows if isinstance(row.whole, Dialogue) and _learns(row.example.prompt)]
    lost = [row for row in dialogues if row.whole.num_trained == row.whole.num_last]
    if lost:
        what = f"in {_count(lost, rows)} the last answer alone is trained: the chat template rewrites the earlier ones"
        yield Finding("warn", what, "take out of earlier answers what the template drops, such as thoughts", _places(lost))


def _learns(prompt: str) -> bool:
    """Whether something in front of the last answer, but for a first turn, is to be learnt."""
    return isinstance(prompt, Conversation) and any(prompt.learnt[1:])


def _doubled(encoder: Encoder, rows: Sequence[Coded]) -> Iterator[Finding]:
    begin = encoder.tokenizer.bos_token_id
    doubled = [row for row in rows if begin is not None and row.whole.ids[:2] == (begin, begin)]
    if doubled:
        what = f"{_count(doubled, rows)} begin with two BOS tokens: the template and the tokenizer both add one"
        yield Finding("refuse", what, f"take {encoder.tokenizer.bos_token!r} out of the prompt template or the data", _places(doubled))


def _in_pieces(rows: Sequence[Coded], limit: Limit) -> Iterator[Finding]:
    """Texts that are longer than a row."""
    cut = [row for row in rows if len(row.whole.ids) > limit.tokens]
    if cut:
        pieces = sum(len(pieces_of(row.whole, limit.tokens)) for row in cut)
        what = f"{_of(cut, rows)} more than {limit.tokens:,} tokens and are learnt in {pieces:,} pieces"
        yield Finding("info", what, "nothing is lost; a larger max_length lets the model see more of a text at once", _places(cut))


def _unreadable(rows: Sequence[Coded], marks: int = 0) -> Iterator[Finding]:
    """Texts of which nothing is there but as many marks as the tokenizer puts round each."""
    blank = [row for row in rows if not row.example.prompt.strip() or len(row.whole.ids) <= marks]
    if blank:
        what = f"the prompt has no tokens in {_count(blank, rows)}, for one {blank[0].example.prompt!r:.60}"
        yield Finding("refuse", what, "there is nothing to read: check the prompt template, or drop these rows", _places(blank))


def _wordless(rows: Sequence[Coded]) -> Iterator[Finding]:
    """Words for which the tokenizer has nothing."""
    blank = [row for row in rows if not row.num_answer]
    if blank:
        what = f"no word has a token in {_count(blank, rows)}, for one {blank[0].example.prompt!r:.60}"
        yield Finding("refuse", what, "there is nothing to read: drop these rows", _places(blank))
    lost = [row for row in rows if 0 < row.num_answer < len(row.example.prompt.split(" "))]
    if lost:
        what = f"{_of(lost, rows)} words that the tokenizer leaves out: they are not trained, and are tagged as the first label"
        yield Finding("warn", what, "look at these words: marks without width, or control characters", _places(lost))


def _read_in_part(rows: Sequence[Coded], limit: Limit) -> Iterator[Finding]:
    cut = [row for row in rows if len(row.whole.ids) > limit.tokens]
    if cut:
        lost = [len(row.whole.ids) - limit.tokens for row in cut]
        told = f"{_count(cut, rows)} are read in part, max_length is {limit.tokens:,}"
        what = f"{told}: {sum(lost):,} tokens in all are not, at most {max(lost):,} of a row"
        yield Finding("warn", what, limit.mend(max(len(row.whole.ids) for row in cut)), _places(cut))


def _too_long(rows: Sequence[Coded], limit: Limit) -> Iterator[Finding]:
    large = [row for row in rows if row.whole.num_last >= limit.tokens]
    if large:
        most = max(row.num_answer for row in large)
        what = f"{_of(large, rows)} a completion that alone has up to {most:,} tokens, and max_length is {limit.tokens:,}"
        yield Finding("refuse", what, limit.mend(max(len(row.whole.ids) for row in large)), _places(large))
    cut = [row for row in rows if row.over(limit.tokens)]
    if cut:
        lost = [row.over(limit.tokens) for row in cut]
        each = "lose" if len(cut) != 1 else "loses"
        what = (
            f"{_count(cut, rows)} {each} the beginning of the prompt to max_length {limit.tokens:,}: "
            f"{sum(lost):,} tokens in all, at most {max(lost):,} of a row"
        )
        earlier = sum(row.whole.num_trained - row.whole.cut(limit.tokens, None).num_trained for row in cut)
        what += f", {earlier:,} of them earlier answers that would be trained" if earlier else ""
        yield Finding("warn", what, limit.mend(max(len(row.whole.ids) for row in cut)), _places(cut))


def _ends(encoder: Encoder, rows: Sequence[Coded]) -> Iterator[Finding]:
    """The tokens that end an answer where they do not belong."""
    for end in encoder.stops:
        word = str(encoder.tokenizer.convert_ids_to_tokens(end))
        what = f"the end-of-sequence token {word!r}" if end == encoder.tokenizer.eos_token_id else f"{word!r}, which ends a turn,"
        asked = [row for row in rows if _ends_within(encoder, row, end, word)]
        if asked:
            told = f"{_of(asked, rows)} {what} inside the prompt: a model takes what stands before it for another text"
            yield Finding("warn", told, f"take {word!r} out of the prompt template or the data", _places(asked))
        twice = [row for row in rows if end in row.whole.ids[row.whole.start : len(row.whole.ids) - len(encoder.closing)]]
        if twice:
            told = f"{_of(twice, rows)} {what} inside the completion, and nbtune adds what ends it"
            yield Finding("warn", told, f"take {word!r} out of the completion template or the data", _places(twice))


def _ends_within(encoder: Encoder, row: Coded, end: int, word: str) -> bool:
    """Whether the prompt itself holds the end; a chat template ends each turn with it, as it should, and so does an encoder's text."""
    if not encoder.joined:
        return word in row.example.prompt and end in encoder.tokenizer(row.example.prompt, add_special_tokens=False)["input_ids"]
    first = 1 if encoder.tokenizer.bos_token_id == end and row.whole.ids[:1] == (end,) else 0
    return end in row.whole.ids[first : row.whole.start]


def _seams(encoder: Encoder, rows: Sequence[Coded]) -> Iterator[Finding]:
    """Where prompt and completion meet."""
    if not encoder.joined:
        return
    glued = [row for row in rows if _glued(row.example.prompt, row.example.completion)]
    if glued:
        prompt, completion = glued[0].example.prompt, glued[0].example.completion
        what = f"{_of(glued, rows)} no space between prompt and completion, for one {quoted(prompt[-12:] + completion[:12])}"
        yield Finding("warn", what, 'begin the completion with a space, in quotes: completion: " {{ ... }}"', _places(glued))
    split = [row for row in rows if row.example.prompt.endswith(" ") and not row.example.completion[:1].isspace()]
    if split:
        what = f"{_of(split, rows)} a prompt that ends with a space, which most tokenizers join to the word that follows"
        yield Finding("warn", what, "end the prompt without it and begin the completion with it", _places(split))


def _glued(prompt: str, completion: str) -> bool:
    return _spaced(completion[:1]) and (_spaced(prompt[-1:]) or prompt.endswith(_ENDS))


def _spaced(sign: str) -> bool:
    """Whether it is a digit or a letter of a script that has capitals: these write spaces between words."""
    return sign.isdigit() or sign.lower() != sign.upper()


def _facts(encoder: Encoder, limit: Limit) -> Iterator[Finding]:
    tokenizer = encoder.tokenizer
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        what = f"padding and end of sequence are the same token, {tokenizer.eos_token!r}"
        yield Finding("info", what, "nothing to do: padding is told by its place, so a row's own end is still trained")
    if limit.context is not None and limit.asked > limit.context:
        yield Finding("info", f"max_length {limit.asked:,} is more than the model reads: {limit.context:,} is used")


def _of(some: Sequence[Coded], rows: Sequence[Coded]) -> str:
    return f"{_count(some, rows)} {'has' if len(some) == 1 else 'have'}"


def _count(some: Sequence[Coded], rows: Sequence[Coded]) -> str:
    """Some of the rows, and which these are."""
    parts = " and ".join(dict.fromkeys(row.example.split for row in rows))
    return f"{len(some):,} of {len(rows):,} {parts} rows"


def _places(rows: Sequence[Coded]) -> tuple[str, ...]:
    return tuple(place(row.example) for row in rows)
