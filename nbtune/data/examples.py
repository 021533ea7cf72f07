"""An example: one row with its prompt and completion filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nbtune.data.rows import Row
from nbtune.data.templates import Template
from nbtune.errors import DataError

__all__ = ["Example", "Filled", "Rendered", "example_key", "fill", "row_key", "with_row"]

_SHOWN: Final = 5


class Rendered(str):
    """A prompt that knows the `row` it was written from, so that the row can be asked in other words."""

    __slots__ = ("row",)
    row: Mapping[str, Any]


def with_row(prompt: str, row: Mapping[str, Any]) -> str:
    """The prompt as one that knows its row; a conversation has none but its turns."""
    if type(prompt) is not str and not isinstance(prompt, Rendered):
        return prompt
    made = prompt if isinstance(prompt, Rendered) else Rendered(prompt)
    made.row = row
    return made


@dataclass(frozen=True)
class Example:
    """One row of one part of a task.

    `index` counts within its part from 0, `label` is the completion without outer spaces (None for generation), and `key`
    tells examples apart by what they say: the start of the SHA-256 of prompt and completion.
    """

    index: int
    split: str
    row: Mapping[str, Any]
    prompt: str
    completion: str
    label: str | None
    key: str

    @property
    def question(self) -> str:
        """The prompt, which knows its row."""
        return with_row(self.prompt, self.row)

    @property
    def expected(self) -> str:
        """What is to be answered: the label, or the completion without outer spaces."""
        return self.label if self.label is not None else self.completion.strip()


@dataclass(frozen=True)
class Filled:
    """A row with its texts, before it is known which part it goes to."""

    row: Row
    prompt: str
    completion: str

    @property
    def label(self) -> str:
        """The completion without outer spaces."""
        return self.completion.strip()


def example_key(prompt: str, completion: str) -> str:
    """16 hexadecimal digits that tell examples apart."""
    return hashlib.sha256((prompt + completion).encode()).hexdigest()[:16]


def row_key(row: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that tell rows apart, in whatever words they are asked."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:16]


def fill(rows: Sequence[Row], prompt: Template, completion: Template | None, part: str = "", *, what: str = "prompt") -> list[Filled]:
    """The rows with both templates filled; without one of a completion, theirs is empty. `what` the first is called in an error.

    Raises:
        DataError: a column or value that a template needs is not there; prompts or completions that are empty or white space only.
    """
    templates = {name: template for name, template in ((what, prompt), ("completion", completion)) if template is not None}
    for name, template in templates.items():
        try:
            template.columns(rows[0])
        except DataError as error:
            raise DataError(f"{part + ', ' if part else ''}{name}: {error.message}", hint=error.hint) from None
    where = f"{part} row" if part else "row"
    texts = {"completion": [""] * len(rows), **{name: _render(rows, template, name, where) for name, template in templates.items()}}
    return [Filled(*three) for three in zip(rows, texts[what], texts["completion"], strict=True)]


def _render(rows: Sequence[Row], template: Template, name: str, where: str) -> list[str]:
    texts: list[str] = []
    failed: list[tuple[int, DataError]] = []
    for number, row in enumerate(rows, start=1):
        try:
            texts.append(template.render(row))
        except DataError as error:
            failed.append((number, error))
    if failed:
        number, first = failed[0]
        also = f" (and {len(failed) - 1} more rows)" if len(failed) > 1 else ""
        raise DataError(f"{where} {number}, {name}: {first.message}{also}", hint=first.hint) from None
    _refuse_empty(texts, name, where)
    return texts


def _refuse_empty(texts: Sequence[str], name: str, where: str) -> None:
    empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    if not empty:
        return
    listed = ", ".join(map(str, empty[:_SHOWN])) + (", ..." if len(empty) > _SHOWN else "")
    noun = f"{where} {listed}" if len(empty) == 1 else f"{where}s {listed}"
    msg = f"the {name} is empty or white space only in {len(empty)} of {len(texts)} rows ({noun})"
    raise DataError(msg, hint="drop such rows or fill them; check the template and the column it reads")
