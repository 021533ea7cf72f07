"""What a search has asked and been told, as one JSON file of the project, so that a killed one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nbtune.data.examples import row_key
from nbtune.data.tables import write_whole
from nbtune.store import home

if TYPE_CHECKING:
    from nbtune.task import Example

__all__ = ["KeptSearch", "Said", "search_key"]

_FORMAT: Final = 1
_BETWEEN: Final = 0.5
"""Seconds between two writes of answers, which the answers' cache keeps as well."""


class Said(NamedTuple):
    """What was answered, the tokens that were read and written for it, and the seconds that it took."""

    text: str
    tokens: int
    seconds: float


def search_key(*parts: Any) -> str:
    """The name of a search: 16 hexadecimal digits of all that decides what it asks."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True, default=str).encode()).hexdigest()[:16]


@dataclass
class KeptSearch:
    """Answers by template and row, proposals by request. What cannot be read or written is told in `trouble`, and asked again."""

    key: str
    trouble: str | None = None
    _answers: dict[str, dict[str, Said]] = field(default_factory=dict)
    _proposals: dict[str, Said] = field(default_factory=dict)
    _written: float = 0.0

    @classmethod
    def open(cls, key: str) -> KeptSearch:
        """What there is of a search."""
        made = cls(key)
        try:
            record = json.loads(made.path.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(record["format"])  # noqa: TRY301  told below like the rest
            made._answers = {source: {row: _said(said) for row, said in rows.items()} for source, rows in record["answers"].items()}
            made._proposals = {request: _said(said) for request, said in record["proposals"].items()}
        except FileNotFoundError:
            return made  # the first time
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            made.trouble = f"{made.path} cannot be read ({type(error).__name__}: {error}): the search begins anew"
        return made

    @property
    def path(self) -> Path:
        """The file."""
        return home() / "searches" / f"{self.key}.json"

    def answer(self, source: str, row: Example) -> Said | None:
        """What was answered to a row by a template."""
        return self._answers.get(source, {}).get(_name(row))

    def put_answer(self, source: str, row: Example, said: Said) -> None:
        """Keeps an answer; it is written with the next `write`."""
        self._answers.setdefault(source, {})[_name(row)] = said

    def answers(self, source: str, rows: Sequence[Example]) -> list[Said]:
        """What was answered to rows that have been asked."""
        return [self._answers[source][_name(row)] for row in rows]

    def proposal(self, place: str, request: str) -> Said | None:
        """What a proposer wrote to a request in this place of the search."""
        return self._proposals.get(f"{place} {request}")

    def put_proposal(self, place: str, request: str, said: Said) -> None:
        """Keeps a proposal."""
        self._proposals[f"{place} {request}"] = said

    def write(self, *, now: bool = False) -> None:
        """Writes the file whole, but not more than twice a second unless `now`."""
        if not now and time.monotonic() - self._written < _BETWEEN:
            return
        record = {"format": _FORMAT, "answers": self._answers, "proposals": self._proposals}
        try:
            write_whole(self.path, json.dumps(record).encode())
        except OSError as error:
            self.trouble = f"the search is not kept in {self.path}: {error.strerror or error}"
        self._written = time.monotonic()


def _name(row: Example) -> str:
    """By what stands in the row, of which a template may read more than the task does."""
    return row_key(row.row)


def _said(record: Any) -> Said:
    text, tokens, seconds = record
    if not isinstance(text, str):
        raise TypeError(text)
    return Said(text, int(tokens), float(seconds))
