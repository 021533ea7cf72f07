"""Completion inside our magics: methods, flags, keys and values, out of the specs; in a few milliseconds and without torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbtune.approaches import short_option
from nbtune.errors import NbtuneError
from nbtune_magics.columns import functions_in
from nbtune_magics.line import split_line
from nbtune_magics.suggestions import approach_names, approach_spec, values_of

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from nbtune.spec import Option
    from nbtune_magics.magic import Magic

__all__ = ["Candidates", "Completion"]

_LINE_MAGIC: Final = re.compile(r"^(?:\s*)(?:[\w.,\s]+=\s*)?%(\w+)\s+(.*)$", re.DOTALL)
_CELL_MAGIC: Final = re.compile(r"^%%(\w+)(\s.*)?$", re.DOTALL)
_ITEM: Final = re.compile(r"^\s*-\s+(\S*)$")
_KEY: Final = re.compile(r"^([\w-]*)$")
_VALUE: Final = re.compile(r"^(?:\s*-\s+)?([\w-]+):\s+(\S*)$")
_INNER: Final = re.compile(r"^(?:\s*-\s+)?([\w-]+):\s+\{(.*)$")
_LISTED: Final = re.compile(r"^(?:\s*-\s+)?ensemble:\s+\[(?:.*,\s*)?([^\s,{}:]*)$")


@dataclass(frozen=True)
class Candidates:
    """What fits in place of `fragment`, the text just before the cursor; nothing may fit."""

    fragment: str = ""
    texts: tuple[str, ...] = ()


class _Sealed(list[Any]):
    """No completion at all: IPython lets only a result that is not empty keep the other matchers out."""

    def __len__(self) -> int:
        return max(1, super().__len__())

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class Completion:
    """Completes in cells and lines of `magics`; what is not ours is left to IPython."""

    shell: InteractiveShell
    magics: tuple[Magic, ...]

    def matcher(self) -> Callable[[CompletionContext], SimpleMatcherResult]:
        """What is put among the completer's custom matchers."""
        from IPython.core.completer import context_matcher

        @context_matcher(identifier="nbtune")  # type: ignore[untyped-decorator]
        def matches(context: CompletionContext) -> SimpleMatcherResult:
            found = self.complete(context.full_text, context.cursor_line, context.cursor_position)
            return _result(found)

        return matches  # type: ignore[no-any-return]

    def complete(self, cell: str, line: int, column: int) -> Candidates | None:
        """What fits at a place of a cell (both counted from 0); None where it is not ours to say."""
        lines = cell.split("\n")
        first = next((number for number, text in enumerate(lines) if text.strip()), 0)
        before = lines[line][:column]
        heading = _CELL_MAGIC.match(lines[first])
        magic = self._magic(heading.group(1)) if heading else None
        if magic is not None and heading is not None:
            if line == first:
                typed = _CELL_MAGIC.match(before)
                return self._line(magic, typed.group(2)) if typed and typed.group(2) else None
            others = [text for number, text in enumerate(lines) if first < number != line]
            return self._body(magic, heading.group(2) or "", others, before)
        single = _LINE_MAGIC.match(before)
        magic = self._magic(single.group(1)) if single else None
        return self._line(magic, single.group(2)) if magic is not None and single is not None else None

    def _magic(self, name: str) -> Magic | None:
        return next((magic for magic in self.magics if magic.name == name), None)

    def _line(self, magic: Magic, text: str) -> Candidates:
        fragment = re.search(r"\S*$", text).group()  # type: ignore[union-attr]
        words = _words(text[: len(text) - len(fragment)])
        if words is None:
            return Candidates(fragment)
        table = magic.table(tuple(_positional(words, magic.table()))[:1])
        if fragment.startswith("--") and "=" in fragment:
            name, _, typed = fragment[2:].partition("=")
            return self._values(table.get(name.replace("-", "_")), typed)
        if fragment.startswith("-"):
            return _starting(fragment, _flags(table, words))
        option = table.get(words[-1][2:].replace("-", "_")) if words and words[-1].startswith("--") else None
        if option is not None and option.kind != "bool":
            return self._values(option, fragment)
        said = list(_positional(words, table))
        names = [name for name in (magic.more_names() if said else magic.names()) if name not in said]
        return _starting(fragment, names or _flags(table, words))

    def _values(self, option: Option | None, typed: str) -> Candidates:
        return Candidates(typed) if option is None else _starting(typed, values_of(option, typed, self.shell.user_ns))

    def _body(self, magic: Magic, heading: str, others: Sequence[str], before: str) -> Candidates:
        words = _words(heading) or []
        table = {name: item for name, item in magic.table(tuple(_positional(words, magic.table()))[:1]).items() if item not in magic.own}
        lists_approaches = magic.name in ("compare", "prompt")
        if lists_approaches and (inner := _INNER.match(before)):
            return self._inner(inner.group(1), inner.group(2))
        if lists_approaches and (member := _LISTED.match(before)):
            return _starting(member.group(1), approach_names())
        if lists_approaches and (item := _ITEM.match(before)):
            return _starting(item.group(1), [*approach_names(runs=True), *functions_in(self.shell.user_ns)])
        if key := _KEY.match(before):
            used = {text.partition(":")[0].strip() for text in others}
            keys = [f"{item.name}: " for item in dict.fromkeys(table.values()) if item.name not in used]
            names = approach_names() if magic.name == "prompt" else ("- ",) if magic.name == "compare" else ()
            return _starting(key.group(1), [*names, *keys])
        if value := _VALUE.match(before):
            name = value.group(1)
            is_approach = magic.name == "prompt" or before.lstrip().startswith("-")
            if lists_approaches and is_approach and (short := short_option(name)):
                return self._inner(name, f"{short}: {value.group(2)}")
            return self._values(table.get(name.replace("-", "_")), value.group(2))
        return Candidates()

    def _inner(self, name: str, inside: str) -> Candidates:
        """Within `few-shot: {k: 8, ...`: the approach's keys, and after a key its values."""
        last = inside.rpartition(",")[2].lstrip()
        spec = approach_spec(name)
        table: Mapping[str, Option] = {item.name: item for item in spec.options()} if spec is not None else {}
        key, colon, typed = last.partition(":")
        if colon:
            return self._values(table.get(key.strip()), typed.lstrip())
        used = {part.partition(":")[0].strip() for part in inside.split(",")[:-1]}
        return _starting(last, [f"{key}: " for key in table if key not in used])


def _result(found: Candidates | None) -> SimpleMatcherResult:
    from IPython.core.completer import SimpleCompletion

    if found is None:
        return {"completions": [], "suppress": False}
    completions = [SimpleCompletion(text, type="keyword") for text in found.texts]
    return {"completions": _Sealed(completions), "suppress": True, "matched_fragment": found.fragment, "ordered": True}


def _words(text: str) -> list[str] | None:
    """The finished words before the cursor; None inside an open quote or bracket, where nothing is completed."""
    try:
        return [word.text for word in split_line(text)]
    except NbtuneError:
        return None


def _positional(words: Sequence[str], table: Mapping[str, Option]) -> Iterable[str]:
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("--"):
            option = table.get(word[2:].partition("=")[0].replace("-", "_"))
            skip = "=" not in word and option is not None and option.kind != "bool"
        else:
            yield word


def _flags(table: Mapping[str, Option], words: Sequence[str]) -> list[str]:
    used = {item.name for word in words if (item := table.get(word[2:].partition("=")[0].replace("-", "_"))) and word.startswith("--")}
    names = [name for name, item in table.items() if item.name not in used]
    names.sort(key=lambda name: table[name].name != name)
    return [f"--{name}" for name in names] + ["--help"]


def _starting(fragment: str, texts: Iterable[str]) -> Candidates:
    return Candidates(fragment, tuple(text for text in dict.fromkeys(texts) if text.startswith(fragment)))
