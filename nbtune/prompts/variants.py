"""Variants of a task's template: the user's own, checked, and what a proposer writes, made into templates or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from nbtune.data.templates import Template
from nbtune.errors import DataError, NbtuneError, SpecError

if TYPE_CHECKING:
    from nbtune.task import Example, Task

__all__ = ["Frame", "Unusable", "Variant", "given", "own_source"]

_LONGEST: Final = 2000
_FENCE: Final = re.compile(r"```[\w-]*\n?(.*?)```", re.DOTALL)
_CHATTER: Final = re.compile(r"^(?:sure|certainly|of course|okay|ok|here)\b[^\n]*:[ \t]*\n+", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"^\**(?:(?:the|a|my|new|better|improved|rewritten) )*(?:prompt|instruction|template)s?\**[ \t]*:\**\s*", re.IGNORECASE
)
_QUOTES: Final = (('"', '"'), ("'", "'"), ("`", "`"), ("\u201c", "\u201d"), ("**", "**"))


@dataclass(frozen=True)
class Variant:
    """A template, and where it comes from: "task", "given", or the round that it was written in."""

    source: str
    origin: str
    template: Template = field(compare=False, repr=False)

    @classmethod
    def of(cls, source: str, origin: str) -> Self:
        """The variant of a text.

        Raises:
            DataError: it is no template.
        """
        return cls(source, origin, Template(source))

    @property
    def words(self) -> str:
        """What it says, whatever the case and the white space."""
        return " ".join(self.source.split()).casefold()

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt of a row.

        Raises:
            DataError: a column or a value is lacking, or nothing is left.
        """
        text = self.template.render(row)
        if not text.strip():
            raise DataError(f"the template {self.source[:60]!r} gives an empty prompt", hint="fill the columns that it reads")
        return text


class Unusable(NbtuneError):  # noqa: N818  no mistake of the user's: it is counted, and `message` is what it is counted as
    """What a proposer wrote cannot be asked."""


def own_source(task: Task) -> str:
    """The task's own prompt as one template."""
    second = task.spec.text_pair
    return str(task.spec.prompt) if second is None else f"{task.spec.prompt}\n{second}"


def given(task: Task, templates: Sequence[str], rows: Sequence[Example]) -> list[Variant]:
    """The task's own template and the user's, each once, all of which the rows can fill.

    Raises:
        SpecError: a template that is empty, reads no column, or reads the answer.
        DataError: one that cannot be read or filled.
    """
    found = {own_source(task): Variant.of(own_source(task), "task")}
    answer = _answer_columns(task, rows[0].row)
    for number, source in enumerate(templates, start=1):
        try:
            variant = Variant.of(source, "given")
            columns = variant.template.columns(rows[0].row)
            _refuse_unread(task, source, columns, answer)
            for item in rows:
                variant.render(item.row)
        except SpecError as error:
            raise SpecError(f"template {number}: {error.message}", hint=error.hint) from None
        except DataError as error:
            raise DataError(f"template {number}: {error.message}", hint=error.hint) from None
        found.setdefault(source, variant)
    return list(found.values())


def _answer_columns(task: Task, row: Mapping[str, Any]) -> frozenset[str]:
    """The columns that tell the answer: those of the completion which the prompt does not read itself."""
    if task.spec.completion is None:
        return frozenset()
    said = Template(task.spec.completion).columns(row).values()
    return frozenset(said) - frozenset(Template(own_source(task)).columns(row).values())


def _refuse_unread(task: Task, source: str, columns: Mapping[str, str], answer: frozenset[str]) -> None:
    if not columns:
        reads = ", ".join(f"{{{{ {name} }}}}" for name in Template(own_source(task)).fields)
        raise SpecError(f"it reads no column, it would ask the same of every row: {source[:60]!r}", hint=f"the task's prompt reads {reads}")
    told = next((column for column in columns.values() if column in answer), None)
    if told is not None:
        raise SpecError(
            f"it reads column {told!r}, which holds the answer", hint="a prompt may read any column but those of the completion"
        )


@dataclass(frozen=True)
class Frame:
    """What every proposal keeps of the task's template: the columns, and from the first line that reads one on the layout, `body`."""

    source: str
    fields: tuple[str, ...]
    body: str

    @classmethod
    def of(cls, task: Task) -> Self:
        """That of a task."""
        source = own_source(task)
        lines = source.splitlines(keepends=True)
        first = next(number for number, line in enumerate(lines) if "{{" in line or "{%" in line)
        return cls(source, Template(source).fields, "".join(lines[first:]))

    def variant(self, written: str, origin: str) -> Variant:
        """The template that a proposer's text stands for: itself, or an instruction that is put before the task's own layout.

        Columns that it leaves out are put back with the lines of the layout that read them.

        Raises:
            Unusable: empty, too long, or it holds more of the template language than the task's columns.
        """
        text = self._braced(_bare(written))
        if not text:
            raise Unusable("empty")
        if len(text) > max(_LONGEST, 4 * len(self.source)):
            raise Unusable("too long")
        if "{%" in text or "{#" in text:
            raise Unusable("not a template")
        try:
            read = Template(text).fields
            if not set(read) <= set(self.fields):
                raise Unusable("reads other columns")
            return Variant.of(self._whole(text, read), origin)
        except DataError:
            raise Unusable("not a template") from None

    def _whole(self, text: str, read: Sequence[str]) -> str:
        if not read:
            return f"{text}\n{self.body}"
        if len(read) == len(self.fields):
            return text
        lines = self.body.splitlines(keepends=True)
        lacking = [name for name in self.fields if name not in read]
        first = next((number for number, line in enumerate(lines) if any(re.search(rf"\b{name}\b", line) for name in lacking)), 0)
        whole = f"{text}\n{''.join(lines[first:])}"
        return whole if set(Template(whole).fields) >= set(self.fields) else f"{text}\n{self.body}"

    def _braced(self, text: str) -> str:
        """`{text}` and `{{text}}` as `{{ text }}`."""
        for name in self.fields:
            text = re.sub(rf"(?<!\{{)\{{\{{?\s*{re.escape(name)}\s*\}}?\}}(?!\}})", f"{{{{ {name} }}}}", text)
        return text


def _bare(written: str) -> str:
    """What is meant of a proposer's text: without fences, quotes, and words about it."""
    text = written.strip()
    fenced = _FENCE.search(text)
    text = (fenced.group(1) if fenced else text).strip()
    text = _LABEL.sub("", _CHATTER.sub("", text)).strip()
    for begin, end in _QUOTES:
        inner = text[len(begin) : -len(end)]
        if len(text) > len(begin) + len(end) and text.startswith(begin) and text.endswith(end) and end not in inner:
            text = inner.strip()
    return text
