"""From labelled rows to instructions: several ways to ask for the same, some of them turned round (Wei et al. 2022, https://arxiv.org/abs/2109.01652).

A set's own prompt is one of the phrasings; the others are templates over its columns and over `text` (what its prompt reads of a row),
`answer` and `options` (its labels). The usual templates mean these three whatever columns a row has; in one that a user writes a row's own
column of such a name is meant.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Self

from nbtune.data.examples import Example, Rendered, example_key, row_key
from nbtune.data.templates import Template
from nbtune.errors import DataError

__all__ = ["FORMAT", "Instruction", "Phrasing", "Phrasings", "Source", "instructed", "mixed", "sets_in", "shares"]

FORMAT: Final = "instruction"
"""The layout of a task of instructions: each row names its set, says whether that is held out, and has the key of the row it is made of."""


class Instruction(Rendered):
    """A prompt that knows which of the mixed sets it asks for, as a soft prompt of that set's own has to."""

    __slots__ = ("set_name",)
    set_name: str

    @classmethod
    def of(cls, text: str, set_name: str) -> Self:
        """The prompt of a set."""
        made = cls(text)
        made.set_name = set_name
        return made


_CLASSES: Final = (
    "{{ text }}\n\nWhich of these fits: {{ options }}?\nAnswer:",
    "Read the text, and choose one of: {{ options }}.\n\nText: {{ text }}\n\nChoice:",
    "Text: {{ text }}\n\nQuestion: is this about {{ options }}?\nAnswer:",
)
_CLASSES_TURNED: Final = (
    "Write a text to which this answer fits: {{ answer }} (and none of the others of {{ options }}).\n\nText:",
    "Give an example of {{ answer }}.\n\nExample:",
)
_ANSWERS_TURNED: Final = ("What may have been asked, if this is the answer: {{ answer }}\n\nQuestion:",)


@dataclass(frozen=True)
class Phrasing:
    """A way to ask: template of the prompt, and of the completion where that is not the answer (`answers` False: the text).

    A `usual` one is ours, and reads no column of a row, even where one is called `text`, `answer` or `options`.
    """

    prompt: Template
    answers: bool = True
    usual: bool = False


@dataclass(frozen=True)
class Phrasings:
    """The ways to ask of one set beside its own, and those that are turned round."""

    asked: tuple[Phrasing, ...]
    turned: tuple[Phrasing, ...]

    @classmethod
    def of(cls, kind: str, templates: Sequence[str] | None, turned: Sequence[str] | None) -> Phrasings:
        """What was written, or what is usual for the kind.

        Raises:
            DataError: a template that cannot be.
        """
        usual = _CLASSES if kind == "classification" else ()
        usual_turned = _CLASSES_TURNED if kind == "classification" else _ANSWERS_TURNED if kind == "generation" else ()
        return cls(
            tuple(Phrasing(Template(text), usual=templates is None) for text in (usual if templates is None else templates)),
            tuple(Phrasing(Template(text), answers=False, usual=turned is None) for text in (usual_turned if turned is None else turned)),
        )


@dataclass(frozen=True)
class Source:
    """A labelled set: its rows, the columns that its prompt reads, its labels ("": an answer is written), and how it is asked."""

    name: str
    held_out: bool
    rows: Mapping[str, Sequence[Example]]
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    phrasings: Phrasings


def shares(sizes: Mapping[str, int], weights: Mapping[str, float], limit: int) -> dict[str, int]:
    """How many rows of each set are trained: as many as all have together, in proportion to weight times size, of a size at most `limit`.

    Examples-proportional mixing with a limit (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 3.5.2).
    """
    worth = {name: weights[name] * min(size, limit) for name, size in sizes.items()}
    total = sum(min(size, limit) for size in sizes.values())
    whole = sum(worth.values())
    return {name: max(1, round(total * value / whole)) for name, value in worth.items()}


def instructed(source: Source, part: str, count: int | None, *, inverted: float, seed: int) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(row, prompt, completion) of `count` rows of a part (None: each once), again from the first where there are not as many.

    Each time a row comes, a phrasing is drawn for it; of training rows the part `inverted` is turned round.

    Raises:
        DataError: a template reads what a row does not have.
    """
    rows = sorted(source.rows[part], key=lambda item: item.key)
    random.Random(f"{seed}:{source.name}").shuffle(rows)
    for number in range(len(rows) if count is None else count):
        item = rows[number % len(rows)]
        draw = random.Random(f"{seed}:{source.name}:{item.key}:{number // len(rows)}")
        around = part == "train" and bool(source.phrasings.turned) and draw.random() < inverted
        ways: tuple[Phrasing | None, ...] = source.phrasings.turned if around else (None, *source.phrasings.asked)
        way = draw.choice(ways)
        prompt, completion = (item.prompt, item.completion) if way is None else _asked(source, item, way)
        told = {"set": source.name, "held_out": source.held_out, "turned": around, "source": row_key(item.row)}
        yield {**told, "prompt": prompt, "completion": completion}, prompt, completion


def _asked(source: Source, item: Example, way: Phrasing) -> tuple[str, str]:
    values = [(name, str(item.row[name])) for name in source.columns if item.row.get(name) is not None]
    text = values[0][1] if len(values) == 1 else "\n".join(f"{name}: {value}" for name, value in values)
    ours = {"text": text, "answer": item.expected, "options": ", ".join(source.labels)}
    known = ours if way.usual else {**ours, **item.row}
    try:
        return way.prompt.render(known), f" {item.expected if way.answers else text}"
    except DataError as error:
        raise DataError(f"set {source.name!r}: {error.message}", hint=error.hint) from None


def sets_in(items: Sequence[Example]) -> dict[str, list[int]]:
    """{set: numbers of its examples}."""
    found: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        found.setdefault(str(item.row["set"]), []).append(number)
    return found


def mixed(parts: Sequence[Sequence[tuple[dict[str, Any], str, str]]], part: str, seed: int) -> tuple[Example, ...]:
    """The rows of all sets as examples: training rows in any order, the others one of each set after the other."""
    if part == "train":
        rows = [row for rows in parts for row in rows]
        random.Random(f"{seed}:mixed").shuffle(rows)
    else:
        rows = [row for turn in zip_longest(*parts) for row in turn if row is not None]
    return tuple(
        Example(index, part, row, Instruction.of(prompt, row["set"]), completion, None, example_key(prompt, completion))
        for index, (row, prompt, completion) in enumerate(rows)
    )
