"""Rows as tokens: which of them are trained or read, and how a row is cut that is too long. Knows no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from nbtune.metrics.numbers import number_of, written_number
from nbtune.metrics.several import labels_in, written

__all__ = [
    "Answered",
    "Answering",
    "Dialogue",
    "Encoded",
    "Labelled",
    "Pooling",
    "Reading",
    "Spans",
    "Tagged",
    "Tagging",
    "Texts",
    "pieces_of",
]

Pooling = Literal["cls", "mean", "last"]
"""Where a text is read for its class: at its first token, at all of them on average, at its last."""


@dataclass(frozen=True)
class Encoded:
    """One row as token ids; the answer begins at `start` and only it is trained."""

    ids: tuple[int, ...]
    start: int

    @property
    def num_trained(self) -> int:
        """What the row weighs in a loss: its trained tokens, the answer's and the end of sequence."""
        return len(self.ids) - self.start

    @property
    def second(self) -> int | None:
        """Where the second of two texts begins; None: there is one."""
        return None

    @property
    def by_chance(self) -> bool:
        """Whether it is another row at each step."""
        return False

    def drawn(self, chance: str) -> Encoded:
        """The row as it is trained once."""
        return self

    @property
    def num_last(self) -> int:
        """Tokens of the (last) answer, the end of sequence counted: what always has to fit."""
        return len(self.ids) - self.start

    def trains(self, place: int) -> bool:
        """Whether the token at a place is trained."""
        return place >= self.start

    @property
    def reads(self) -> Sequence[int]:
        """Places whose output is read: those before a trained token. A row's very first token follows nothing, so none predicts it."""
        return range(max(self.start, 1) - 1, len(self.ids) - 1)

    @property
    def targets(self) -> Sequence[float]:
        """What is to be read there."""
        return self.ids[max(self.start, 1) :]

    def behind(self, first: Sequence[int]) -> Self:
        """The row with these ids in front of its prompt."""
        return replace(self, ids=(*first, *self.ids), start=self.start + len(first)) if first else self

    def without(self, count: int) -> Self:
        """The row without the first `count` ids, which stand in front of its prompt."""
        return replace(self, ids=self.ids[count:], start=self.start - count) if count else self

    def cut(self, max_length: int, bos: int | None) -> Encoded:
        """The row within `max_length`, without the beginning of its prompt's text where it is longer; a BOS that opens it stays.

        At least one token of the prompt has to stay: the caller sees to it that there is room.
        """
        over = max(0, len(self.ids) - max_length)
        kept = int(bos is not None and self.ids[:1] == (bos,))
        return replace(self, ids=(*self.ids[:kept], *self.ids[kept + over :]), start=self.start - over)


@dataclass(frozen=True)
class Answered(Encoded):
    """A prompt that an encoder reads, and behind it in `ids` an answer that a decoder writes, which is begun with the ids `opening`.

    What is read are places of `written`, not of `ids`.
    """

    opening: tuple[int, ...]

    @property
    def written(self) -> tuple[int, ...]:
        """What goes into the decoder: its opening and the answer but for its last token, so that each place predicts the next."""
        return (*self.opening, *self.ids[self.start : -1])

    @property
    def reads(self) -> Sequence[int]:
        """The last place of the opening, and all behind it."""
        return range(len(self.opening) - 1, len(self.written))

    @property
    def targets(self) -> Sequence[int]:
        """The answer."""
        return self.ids[self.start :]


@dataclass(frozen=True)
class Dialogue(Encoded):
    """A conversation: `trained` are the places of what the assistant says, in several turns; `start` is where the last of them begins."""

    trained: tuple[int, ...]

    @property
    def num_trained(self) -> int:
        """The assistant's tokens."""
        return len(self.trained)

    @property
    def reads(self) -> Sequence[int]:
        """Places before the assistant's tokens."""
        return tuple(place - 1 for place in self.trained)

    @property
    def targets(self) -> Sequence[float]:
        """The assistant's tokens."""
        return tuple(self.ids[place] for place in self.trained)

    def trains(self, place: int) -> bool:
        """Whether it is the assistant's."""
        return place in self.trained

    def behind(self, first: Sequence[int]) -> Self:
        """The row with these ids in front."""
        return replace(super().behind(first), trained=tuple(place + len(first) for place in self.trained))

    def without(self, count: int) -> Self:
        """The row without its first ids."""
        return replace(super().without(count), trained=tuple(place - count for place in self.trained))

    def cut(self, max_length: int, bos: int | None) -> Dialogue:
        """The row within `max_length`, without its first turns; what is trained of them goes, too."""
        over = max(0, len(self.ids) - max_length)
        if not over:
            return self
        kept = int(bos is not None and self.ids[:1] == (bos,))
        plain = super().cut(max_length, bos)
        return Dialogue(plain.ids, plain.start, tuple(place - over for place in self.trained if place > kept + over))


Spans = tuple[tuple[int, int], tuple[int, int]]


def _moved(spans: Spans, by: int) -> Spans:
    (begin, end), (other, last) = spans
    return (begin + by, end + by), (other + by, last + by)


def _cut_longer(ids: tuple[int, ...], spans: Spans, max_length: int) -> tuple[tuple[int, ...], Spans]:
    """Two texts within `max_length`: the longer one is cut until both are as long, then both are."""
    (begin, end), (other, last) = spans
    marks = len(ids) - (end - begin) - (last - other)
    room = max(2, max_length - marks)
    half = room // 2
    one, two = end - begin, last - other
    one, two = (one, min(two, room - one)) if one <= half else (room - two, two) if two <= half else (room - half, half)
    kept = (*ids[: begin + one], *ids[end : other + two], *ids[last:])
    at = other - (end - begin - one)
    return kept, ((begin, begin + one), (at, at + two))


@dataclass(frozen=True)
class Labelled(Encoded):
    """A text and what its head is to say of it, read where `pooling` says; `start` is where its own tokens begin, behind a soft prompt's.

    `label` is the number of its class, for each of several labels 1 or 0, or a number. `weight` is what the row weighs in a loss among
    others. Of a pair, `spans` are the places of its two texts' tokens: [first, behind the last] of each.
    """

    label: int | float | tuple[float, ...]
    pooling: Pooling
    weight: float = 1.0
    spans: Spans | None = None

    @property
    def num_trained(self) -> int:
        """One: a row is one answer."""
        return 1

    @property
    def second(self) -> int | None:
        """Where the second of two texts begins."""
        return None if self.spans is None else self.spans[1][0]

    @property
    def reads(self) -> Sequence[int]:
        """The places that are read: one, or for `mean` all of the text's own."""
        begin, end = {"cls": (self.start, self.start + 1), "mean": (self.start, len(self.ids)), "last": (len(self.ids) - 1, len(self.ids))}[
            self.pooling
        ]
        return range(begin, end)

    @property
    def targets(self) -> Sequence[float]:
        """What its head is to say."""
        return self.label if isinstance(self.label, tuple) else (self.label,)

    def behind(self, first: Sequence[int]) -> Self:
        """The row with these ids in front."""
        moved = super().behind(first)
        return moved if self.spans is None else replace(moved, spans=_moved(self.spans, len(first)))

    def cut(self, max_length: int, bos: int | None) -> Labelled:
        """The row within `max_length`: read at its end it loses its beginning, else its end, but for what closes it.

        Of two texts the longer one loses its end first.
        """
        if len(self.ids) <= max_length:
            return self
        if self.spans is not None:
            ids, spans = _cut_longer(self.ids, self.spans, max_length)
            return replace(self, ids=ids, spans=spans)
        if self.pooling == "last":
            opened = int(bos is not None and self.ids[:1] == (bos,))
            return replace(self, ids=(*self.ids[:opened], *self.ids[opened + len(self.ids) - max_length :]))
        return replace(self, ids=(*self.ids[: max_length - 1], self.ids[-1]))


@dataclass(frozen=True)
class Tagged(Encoded):
    """A text whose words have tags: `places` are those of the words' first tokens, `tags` the numbers of their tags."""

    places: tuple[int, ...]
    tags: tuple[int, ...]

    @property
    def num_trained(self) -> int:
        """Its words."""
        return len(self.places)

    def trains(self, place: int) -> bool:
        """Whether a word is read there."""
        return place in self.places

    @property
    def reads(self) -> Sequence[int]:
        """A word is read at its first token (Devlin et al. 2019, section 5.3)."""
        return self.places

    @property
    def targets(self) -> Sequence[float]:
        """The tags."""
        return self.tags

    def behind(self, first: Sequence[int]) -> Self:
        """The row with these ids in front."""
        return replace(super().behind(first), places=tuple(place + len(first) for place in self.places))

    def cut(self, max_length: int, bos: int | None) -> Tagged:
        """The row within `max_length`, without the words at its end but with what closes it."""
        if len(self.ids) <= max_length:
            return self
        kept = sum(place < max_length - 1 for place in self.places)
        return replace(self, ids=(*self.ids[: max_length - 1], self.ids[-1]), places=self.places[:kept], tags=self.tags[:kept])


@dataclass(frozen=True)
class Tagging:
    """How a model with a head over `labels` reads the words of a text; one that sees `both_ways` has its tokenizer's marks round it."""

    labels: tuple[str, ...]
    both_ways: bool


@dataclass(frozen=True)
class Reading:
    """How a model with a head over `labels` reads a text; one that sees `both_ways` has the marks that its tokenizer puts round it.

    The answer is `of` one class, of any number of labels, or a number, which the head gives in units of `spread` away from `centre`.
    `weights` are what rows of each class weigh in a loss (None: all alike).
    """

    labels: tuple[str, ...]
    pooling: Pooling
    both_ways: bool
    of: Literal["class", "labels", "number"] = "class"
    centre: float = 0.0
    spread: float = 1.0
    weights: tuple[float, ...] | None = None

    @property
    def some(self) -> str:
        """An answer that it can give, for a text of which none is known."""
        return {"class": self.labels[0], "labels": written(()), "number": "0"}[self.of]

    def target(self, answer: str) -> int | float | tuple[float, ...] | None:
        """What the head is to say where that is the answer; None: it cannot."""
        if self.of == "class":
            return self.labels.index(answer) if answer in self.labels else None
        if self.of == "labels":
            named = set(labels_in(answer))
            return tuple(float(label in named) for label in self.labels) if named <= set(self.labels) else None
        value = number_of(answer)
        return None if value is None else (value - self.centre) / self.spread

    def answer(self, outputs: Sequence[float]) -> str:
        """What a head's outputs [labels] say."""
        if self.of == "number":
            return written_number(self.centre + self.spread * outputs[0], self.spread)
        if self.of == "labels":
            return written([label for label, value in zip(self.labels, outputs, strict=True) if value > 0])
        return self.labels[max(range(len(outputs)), key=outputs.__getitem__)]


@dataclass(frozen=True)
class Answering:
    """How a model answers whose encoder reads a prompt, with the marks that its tokenizer puts round it: its decoder begins so."""

    decoder_start: int


@dataclass(frozen=True)
class Texts:
    """Whole texts are learnt, each in pieces of at most as many tokens as a row may have; nothing is asked and answered."""


def pieces_of(row: Encoded, max_length: int) -> list[Encoded]:
    """A text in pieces of at most that many tokens; each begins with the last one of the piece before, so that all are predicted once."""
    step = max_length - 1
    return [Encoded(row.ids[at : at + max_length], 1) for at in range(0, max(1, len(row.ids) - 1), step)]
