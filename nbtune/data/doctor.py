"""The data doctor: a task as one tokenizer writes it, looked at before anything is trained. Knows no model and no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from nbtune.data.content_checks import content_findings
from nbtune.data.encoded import Answering, Encoded, Reading, Tagging, Texts, pieces_of
from nbtune.data.encoding import Encoder
from nbtune.data.findings import Finding, place, refusal
from nbtune.data.masking import Masking, masked_rows
from nbtune.data.token_checks import Coded, Limit, code, token_findings
from nbtune.errors import NbtuneError
from nbtune.views import view

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from nbtune.task import Task

__all__ = ["Bin", "Diagnosis", "Marked", "Spread", "diagnose"]

_BINS: Final = 16
_LEVELS: Final = ("refuse", "warn", "info")


@dataclass(frozen=True)
class Spread:
    """The least, the median and the most of some counts."""

    low: int
    median: int
    high: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> Spread:
        """The spread of `counts`; all 0 where there are none."""
        ordered = sorted(counts) or [0]
        return cls(ordered[0], ordered[len(ordered) // 2], ordered[-1])


@dataclass(frozen=True)
class Bin:
    """One bar of the histogram: how many rows have `low` to `high` tokens, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class Marked:
    """A row as it is trained: its place, why it is shown, and its tokens as (text, whether it is trained)."""

    row: str
    why: str
    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found; all texts come from the data and are untrusted.

    Lengths are of the train rows in tokens, before `max_length` cuts them, prompt, completion and end of sequence together.

    Attributes:
        task: its name.
        model: whose tokenizer it was.
        max_length: most tokens of a row that holds, the model's own limit considered.
        counts: {part: rows}.
        trained: trained tokens of a row; `untrained` rows have none but the end of sequence.
        lengths: tokens of a row; `histogram` counts them in bars.
        cut_rows: rows that lose the beginning of their prompt; `cut_tokens` is how much they lose together. A completion is never cut.
        labels: {label: train rows}, the commonest first, of tagging words; empty for generation.
        labelled: which of the two.
        special: (what, which token) for the marks that stand at a row's ends.
        findings: what must be refused first, then warnings, then what is good to know.
        marked: a few train rows, token by token.
        encoded: the train rows as they are trained; empty where something is refused.
    """

    task: str
    model: str
    max_length: int
    counts: Mapping[str, int]
    trained: Spread
    untrained: int
    lengths: Spread
    histogram: tuple[Bin, ...]
    cut_rows: int
    cut_tokens: int
    labels: Mapping[str, int]
    special: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    marked: tuple[Marked, ...]
    encoded: tuple[Encoded, ...] = field(repr=False)
    labelled: str = "rows"

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The findings that keep a training from starting."""
        return tuple(item for item in self.findings if item.level == "refuse")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings to look into."""
        return tuple(item for item in self.findings if item.level == "warn")

    def briefly(self, most: int = 4) -> list[str]:
        """The warnings, a line each; what is beyond `most` is counted."""
        texts = [item.text for item in self.warnings]
        if len(texts) > most:
            more = len(texts) - most + 1
            texts[most - 1 :] = [f"{more} more warnings about the data: %doctor {self.task} shows them"]
        return texts

    def refuse(self) -> None:
        """Lets pass what can be trained.

        Raises:
            DataError: there is something to refuse; all of it at once.
        """
        if self.refusals:
            raise refusal(self.refusals)

    def __repr__(self) -> str:
        said = f"{self.counts.get('train', 0)} train rows, {len(self.refusals)} refused, {len(self.warnings)} warnings"
        return f"Diagnosis({self.task!r} for {self.model!r}: {said})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        try:
            return cast("dict[str, Any]", view("doctor_mimebundle")(self))
        except NbtuneError:
            return {"text/plain": "\n".join([repr(self), *(f"  {item.level}: {item.text}" for item in self.findings)])}


def diagnose(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int = 512,
    context: int | None = None,
    model: str = "",
    near: bool = True,
    max_eval_rows: int | None = None,
    reading: Reading | Tagging | Texts | Masking | Answering | None = None,
) -> Diagnosis:
    """Looks at a task's rows and at their tokens.

    Args:
        task: what to look at.
        tokenizer: how it is written in tokens.
        max_length: most tokens of a row.
        context: most tokens that the model reads, where it says so.
        model: whose tokenizer it is, for people; left out, what the tokenizer calls itself.
        near: look for near-duplicates, which takes seconds from thousands of rows on.
        max_eval_rows: how many dev rows are looked at as tokens; left out, all.
        reading: how a model with a head over classes reads the texts, or one with an encoder answers them; left out, the model writes the
            completion behind the prompt, or goes on with texts.

    Raises:
        DataError: chat is on, and the tokenizer has no chat template.
    """
    how = reading or _reading(task)
    encoder, limit = Encoder(tokenizer, task.uses_chat, task.system, reading=how), Limit(max_length, context)
    train = code(encoder, task.train)
    asked = code(encoder, task.dev[:max_eval_rows])
    found = [*token_findings(encoder, [*train, *asked], limit), *content_findings(task, near=near)]
    findings = tuple(sorted(found, key=lambda item: _LEVELS.index(item.level)))
    refused = any(item.level == "refuse" for item in findings)
    lengths = [len(row.whole.ids) for row in train]
    lost = [row.over(limit.tokens) for row in train]
    return Diagnosis(
        task=task.name,
        model=model or str(tokenizer.name_or_path),
        max_length=limit.tokens,
        counts={"train": len(task.train), "dev": len(task.dev), "test": len(task.test)},
        trained=Spread.of([row.whole.num_trained if row.num_answer else 0 for row in train]),
        untrained=sum(row.num_answer == 0 for row in train),
        lengths=Spread.of(lengths),
        histogram=_histogram(lengths),
        cut_rows=sum(tokens > 0 for tokens in lost),
        cut_tokens=sum(lost),
        labels=_labels(task),
        special=_special(encoder, train),
        findings=findings,
        marked=_marked(encoder, train, limit.tokens),
        labelled="words" if task.kind == "tagging" else "rows",
        encoded=() if refused else _encoded(encoder, train, limit.tokens),
    )


def _reading(task: Task) -> Tagging | Texts | None:
    """How rows of that kind are read where no model says."""
    if task.kind == "tagging":
        return Tagging(task.labels, both_ways=True)
    return Texts() if task.kind == "text" else None


def _encoded(encoder: Encoder, rows: Sequence[Coded], max_length: int) -> tuple[Encoded, ...]:
    if isinstance(encoder.reading, Masking):
        return tuple(masked_rows(encoder.tokenizer, [row.example.prompt for row in rows], encoder.reading, max_length))
    return tuple(piece for row in rows for piece in _cut(encoder, row, max_length))


def _cut(encoder: Encoder, row: Coded, max_length: int) -> list[Encoded]:
    if isinstance(encoder.reading, Texts):
        return [piece for piece in pieces_of(row.whole, max_length) if piece.num_trained]
    return [row.whole.cut(max_length, encoder.tokenizer.bos_token_id)]


def _histogram(lengths: Sequence[int]) -> tuple[Bin, ...]:
    """At most 16 bars of a round width, from the shortest row to the longest."""
    if not lengths:
        return ()
    low, high = min(lengths), max(lengths)
    width = _width(high - low + 1)
    first = low // width
    counts = Counter(length // width for length in lengths)
    return tuple(Bin(number * width, (number + 1) * width - 1, counts[number]) for number in range(first, high // width + 1))


def _width(span: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 ... at which one bar less than the most covers `span` wherever it begins."""
    least = span / (_BINS - 1)
    size: int = 10 ** max(0, math.floor(math.log10(max(1.0, least))))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= least)


def _labels(task: Task) -> dict[str, int]:
    counts = task.label_counts(task.train)
    ordered = sorted(task.completion_of, key=lambda label: (-counts[label], label))
    return {label: counts[label] for label in ordered}


def _special(encoder: Encoder, rows: Sequence[Coded]) -> tuple[tuple[str, str], ...]:
    tokenizer = encoder.tokenizer
    begin = tokenizer.bos_token_id
    opened = begin is not None and any(row.whole.ids[:1] == (begin,) for row in rows)
    first = f"{tokenizer.bos_token}" if opened else "none" if begin is None else f"none ({tokenizer.bos_token} is not added)"
    last = f"{tokenizer.decode(list(encoder.closing))}, trained" if encoder.closing else "none"
    if isinstance(encoder.reading, Reading | Tagging):
        last = "none, nothing is written"
    prompt = "the chat template's" if encoder.chat else "the whole text" if isinstance(encoder.reading, Texts) else "the template as it is"
    return (("Prompt", prompt), ("First token (BOS)", first), ("Last token (EOS)", last), ("Padding", str(tokenizer.pad_token or "none")))


def _marked(encoder: Encoder, rows: Sequence[Coded], max_length: int) -> tuple[Marked, ...]:
    """The first two rows, and the longest and the one with the fewest trained tokens where these are others."""
    if not rows:
        return ()
    chosen: dict[int, str] = dict.fromkeys(range(min(2, len(rows))), "")
    longest = max(range(len(rows)), key=lambda number: len(rows[number].whole.ids))
    least = min(range(len(rows)), key=lambda number: rows[number].whole.num_trained)
    chosen.setdefault(longest, "the longest")
    if rows[least].whole.num_trained < rows[0].whole.num_trained:
        chosen.setdefault(least, "the fewest trained tokens")
    return tuple(_mark(encoder, rows[number], why, max_length) for number, why in chosen.items())


def _mark(encoder: Encoder, row: Coded, why: str, max_length: int) -> Marked:
    lost = row.over(max_length)
    said = ", ".join(text for text in (why, f"the first {lost:,} tokens of its text are cut off" if lost else "") if text)
    return Marked(place(row.example), said, encoder.pieces(row.whole.cut(len(row.whole.ids) - lost, encoder.tokenizer.bos_token_id)))
