"""Masked texts: some tokens are hidden and predicted from those on both sides; others at each step.

Of a row's tokens a part is chosen (15 %); of those 80 % become the mask, 10 % another token, 10 % stay as they are (Devlin et al. 2019,
https://arxiv.org/abs/1810.04805, section 3.1). With whole words all tokens of a word are chosen together, where they are no more than are
wanted. Beside that, a model may tell whether the second of two passages is the one that follows the first: half of the time it is another
text's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final, Self

from nbtune.data.encoded import Encoded
from nbtune.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["FOLLOWS", "Masked", "Masking", "Passages", "masked_rows"]

MASKED: Final = 0.8
REPLACED: Final = 0.1
FOLLOWS: Final = 0
"""The class of a passage that follows the first one; 1 is another text's (transformers' order)."""
_LONGEST: Final = 12
"""Tokens of a word; where a tokenizer divides at spaces, what is longer is a sentence (Chinese, Japanese, Thai), a link or a key."""
_SENTENCE: Final = re.compile("(?<=[.!?])\\s+|(?<=[\u3002\uff01\uff1f])\\s*|\n+")
Words = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Masking:
    """How texts are hidden from a model that sees both ways; with `sentences` it is asked about two passages, too.

    `mask` is the id that hides, `words` are those that may stand in for another, `opening` and `closing` what the tokenizer puts round a
    text, `between` what it puts between two.
    """

    probability: float
    whole_words: bool
    sentences: bool
    mask: int
    words: tuple[int, ...]
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    between: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, *, probability: float, whole_words: bool, sentences: bool) -> Self:
        """By what the tokenizer does with one text and with two.

        Raises:
            DataError: it has no mask, or cannot tell where its tokens stand.
        """
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            lacking = "mask token" if tokenizer.mask_token_id is None else "way to tell words apart"
            raise DataError(f"the tokenizer has no {lacking}", hint="use an encoder that was trained with masks, such as minilm or a BERT")
        said = tokenizer("a", "a")
        ids, of = [int(token) for token in said["input_ids"]], said.sequence_ids()
        first, last = of.index(0), len(of) - 1 - of[::-1].index(1)
        end = len(of) - of[::-1].index(0)
        special = set(tokenizer.all_special_ids)
        words = tuple(token for token in range(len(tokenizer)) if token not in special)
        marks = tuple(ids[:first]), tuple(ids[last + 1 :]), tuple(ids[end : of.index(1)])
        return cls(probability, whole_words, sentences, int(tokenizer.mask_token_id), words, *marks)


@dataclass(frozen=True)
class Passages:
    """All passages that a second one may be drawn from, each with the number of its text, and their words' places."""

    ids: tuple[tuple[int, ...], ...]
    words: tuple[Words, ...]
    texts: tuple[int, ...]


@dataclass(frozen=True)
class Masked(Encoded):
    """A text whose words have `words`' places, hidden as `how` says once it is `drawn`; then `tokens` are predicted at `places`.

    Of two passages, the first has number `number` in `passages`, and the second is drawn with the rest; `says` is whether it follows.
    """

    words: Words
    how: Masking
    places: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    passages: Passages | None = None
    number: int = 0
    begins: int | None = None
    says: int | None = None

    @property
    def num_trained(self) -> int:
        """Tokens that are predicted, or will be."""
        return len(self.places) or _wanted(self.words, self.how)

    def trains(self, place: int) -> bool:
        """Whether the token at a place is hidden."""
        return place in self.places

    @property
    def reads(self) -> Sequence[int]:
        """Hidden places are read themselves; before they are drawn, as many as there will be."""
        return self.places or range(self.start, self.start + self.num_trained)

    @property
    def targets(self) -> Sequence[int]:
        """What stood there."""
        return self.tokens

    @property
    def second(self) -> int | None:
        """Where the second passage begins."""
        return self.begins

    @property
    def by_chance(self) -> bool:
        """It is another row at each step."""
        return True

    def behind(self, first: Sequence[int]) -> Self:
        """The row with these ids in front."""
        return self._moved(super().behind(first), len(first)) if first else self

    def without(self, count: int) -> Self:
        """The row without its first ids."""
        return self._moved(super().without(count), -count) if count else self

    def _moved(self, row: Self, by: int) -> Self:
        words = tuple(tuple(place + by for place in word) for word in self.words)
        begins = None if self.begins is None else self.begins + by
        return replace(row, words=words, places=tuple(place + by for place in self.places), begins=begins)

    def cut(self, max_length: int, bos: int | None) -> Self:
        """The row's beginning, of at most that many tokens."""
        kept = [(place, token) for place, token in zip(self.places, self.tokens, strict=True) if place < max_length]
        words = tuple(word for word in self.words if word[-1] < max_length)
        places, tokens = tuple(place for place, _ in kept), tuple(token for _, token in kept)
        return replace(self, ids=self.ids[:max_length], words=words, places=places, tokens=tokens)

    def drawn(self, chance: str) -> Masked:
        """The row as it is trained once; the same for the same `chance`."""
        draw = random.Random(chance)
        return _hidden(self if self.passages is None else self._followed(draw), draw)

    def _followed(self, draw: random.Random) -> Self:
        """With its second passage: the next one of its text, or any of another text."""
        known = self.passages
        assert known is not None  # noqa: S101  who calls has looked
        says = int(draw.random() >= 0.5)  # noqa: PLR2004  one half
        other = self.number + 1
        while says != FOLLOWS and known.texts[other] == known.texts[self.number]:
            other = draw.randrange(len(known.ids))
        begins = len(self.ids) - len(self.how.closing) + len(self.how.between)
        ids = (*self.ids[: len(self.ids) - len(self.how.closing)], *self.how.between, *known.ids[other], *self.how.closing)
        words = (*self.words, *(tuple(place + begins for place in word) for word in known.words[other]))
        return replace(self, ids=ids, words=words, begins=begins, says=says)


def _wanted(words: Words, how: Masking) -> int:
    """Tokens of a row that are predicted: at least one."""
    return max(1, round(how.probability * sum(map(len, words))))


def _hideable(words: Words, wanted: int) -> list[tuple[int, ...]]:
    """What is hidden together: words, but for those that are longer than a word is or than what is wanted, whose tokens stand alone."""
    found = list[tuple[int, ...]]()
    for word in words:
        found += [word] if len(word) <= min(wanted, _LONGEST) else [(place,) for place in word]
    return found


def _hidden(row: Masked, draw: random.Random) -> Masked:
    how, chosen = row.how, list[int]()
    wanted = _wanted(row.words, how)
    order = _hideable(row.words, wanted)
    draw.shuffle(order)
    for word in order:
        if len(chosen) + len(word) <= wanted:
            chosen += word
    places = tuple(sorted(chosen))
    ids = list(row.ids)
    for place in places:
        what = draw.random()
        if what < MASKED:
            ids[place] = how.mask
        elif what < MASKED + REPLACED:
            ids[place] = draw.choice(how.words)
    return replace(row, ids=tuple(ids), places=places, tokens=tuple(row.ids[place] for place in places))


def masked_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], how: Masking, max_length: int) -> list[Masked]:
    """All texts in rows of at most `max_length` tokens, none of them drawn yet.

    Raises:
        DataError: two passages are wanted, and there are not two texts, or none has two passages.
    """
    if how.sentences:
        return _in_passages(tokenizer, texts, how, max_length)
    room = max(1, max_length - len(how.opening) - len(how.closing))
    rows = []
    for text in texts:
        ids, of = _tokens(tokenizer, text)
        for at in range(0, len(ids), room):
            words = _words(of[at : at + room], len(how.opening), whole=how.whole_words)
            rows.append(Masked((*how.opening, *ids[at : at + room], *how.closing), len(how.opening), words, how))
    return rows


def _in_passages(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], how: Masking, max_length: int) -> list[Masked]:
    """A row for each passage that has a next one; a passage is as many whole sentences as fit into half of a row, at least one."""
    room = max(1, (max_length - len(how.opening) - len(how.between) - len(how.closing)) // 2)
    ids, words, numbers = list[tuple[int, ...]](), list[Words](), list[int]()
    for number, text in enumerate(texts):
        for passage, of in _passages(tokenizer, text, room):
            ids.append(passage)
            words.append(_words(of, 0, whole=how.whole_words))
            numbers.append(number)
    known = Passages(tuple(ids), tuple(words), tuple(numbers))
    firsts = [place for place, (one, other) in enumerate(pairwise(numbers)) if one == other]
    if not firsts or len(set(numbers)) < 2:  # noqa: PLR2004
        found = f"{len(set(numbers))} texts with {len(numbers)} passages in all"
        message = f"whether a passage follows another is asked over texts of several sentences, and there are {found}"
        raise DataError(message, hint="give two texts or more with two sentences or more each, a smaller max_length, or objective mlm")
    at = len(how.opening)
    return [
        Masked(
            (*how.opening, *ids[place], *how.closing),
            at,
            tuple(tuple(where + at for where in word) for word in words[place]),
            how,
            passages=known,
            number=place,
        )
        for place in firsts
    ]


def _passages(tokenizer: PreTrainedTokenizerBase, text: str, room: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(ids, number of the word of each) of a text's passages; a sentence that is longer than one is cut."""
    found = list[tuple[tuple[int, ...], tuple[int, ...]]]()
    for sentence in filter(str.strip, _SENTENCE.split(text)):
        ids, of = _tokens(tokenizer, sentence)
        ids, of = ids[:room], of[:room]
        if found and len(found[-1][0]) + len(ids) <= room:
            before, numbers = found[-1]
            found[-1] = (*before, *ids), (*numbers, *(number + numbers[-1] + 1 for number in of))
        elif ids:
            found.append((ids, of))
    return found


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids without the tokenizer's marks, and the number of the word that each is of."""
    said = tokenizer(text, add_special_tokens=False, verbose=False)
    of = [-1 if number is None else int(number) for number in said.word_ids()]
    return tuple(int(token) for token in said["input_ids"]), tuple(of)


def _words(of: Sequence[int], at: int, *, whole: bool) -> Words:
    """The places of each word's tokens; of single tokens, where words do not stay whole."""
    if not whole:
        return tuple((at + place,) for place in range(len(of)))
    return tuple(tuple(at + place for place, _ in group) for _, group in groupby(enumerate(of), key=lambda item: item[1]))
