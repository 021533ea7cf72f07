"""A magic's line: words and `--flags`, read by what each option is. Text in, values out; the shell is never seen.

Like a shell's line, but `{{ text }}`, `{dev: 0.1, test: 0.2}` and `[q_proj, v_proj]` are one word each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nbtune.body import read_value
from nbtune.errors import Problem, SpecError, did_you_mean

if TYPE_CHECKING:
    from nbtune.spec import Option

__all__ = ["Line", "Word", "asks_for_help", "read_line", "split_line"]

_OPENING: Final = {"{": "}", "[": "]"}
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
_BEFORE_A_QUOTE: Final = ("{", "[", ",", ":")
_MAGIC_LINE: Final = 1


@dataclass(frozen=True)
class Word:
    """One word of a line; `quoted` where quotes stood round it, which keeps `--` and `#` from meaning anything."""

    text: str
    quoted: bool = False

    @property
    def is_flag(self) -> bool:
        """Whether it names a flag: `--key` or `--key=value`."""
        return not self.quoted and self.text.startswith("--") and len(self.text) > 2  # noqa: PLR2004


@dataclass(frozen=True)
class Line:
    """What a line says: its words in order, {option's name: value}, and what is wrong with it."""

    words: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def split_line(text: str) -> tuple[Word, ...]:
    """The words of a line; what follows a lone `#` is a comment, a final `;` is left out.

    Raises:
        SpecError: a quote or a bracket is not closed.
    """
    words: list[Word] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        word, at = _word(text, at)
        if word == Word("#"):
            break
        words.append(word)
    return _without_semicolon(words)


def _without_semicolon(words: list[Word]) -> tuple[Word, ...]:
    """In a notebook a `;` at the end of a line asks for no output; it is no part of the last word."""
    if words and not words[-1].quoted and words[-1].text.endswith(";"):
        words[-1:] = [Word(text)] if (text := words[-1].text.rstrip(";")) else []
    return tuple(words)


def asks_for_help(text: str) -> bool:
    """Whether a line says `-h` or `--help`; an unclosed quote is no reason to refuse help."""
    try:
        return any(word in (Word("-h"), Word("--help")) for word in split_line(text))
    except SpecError:
        return any(word in ("-h", "--help") for word in text.split())


def read_line(text: str, table: Mapping[str, Option]) -> Line:
    """The line's words and values; `table` has the option of each name and alias that may stand as a flag.

    Problems are collected, not raised, so that they are told together with the body's.

    Raises:
        SpecError: a quote or a bracket is not closed, so that nothing of the line is sure.
    """
    left = list(reversed(split_line(text)))
    words: list[str] = []
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    while left:
        word = left.pop()
        if not word.is_flag:
            words.append(word.text)
            continue
        name, written = _flag(word)
        option = table.get(name)
        if option is None:
            _value_of(left, None, written)
            problems.append(Problem(f"unknown flag --{name}", did_you_mean(name, table), _MAGIC_LINE))
        elif option.name in values:
            _value_of(left, option, written)
            problems.append(Problem(f"--{option.name} is given twice", "keep one of them", _MAGIC_LINE))
        else:
            values[option.name] = _typed(name, option, _value_of(left, option, written), problems)
    return Line(tuple(words), values, tuple(problems))


def _flag(word: Word) -> tuple[str, Word | None]:
    """(name, value after `=`); a value in quotes right after the `=` was joined by the splitter."""
    name, equals, value = word.text[2:].partition("=")
    if not equals:
        return name.replace("-", "_"), None
    quoted = len(value) > 1 and value[0] in "\"'" and value[0] == value[-1]
    return name.replace("-", "_"), Word(_unquote(value), quoted=True) if quoted else Word(value)


def _value_of(left: list[Word], option: Option | None, written: Word | None) -> Word | None:
    """Takes the flag's value off the words left; None where it has none."""
    if written is not None:
        return written
    if not left or left[-1].is_flag:
        return None
    if option is not None and _is_switch(option) and left[-1].text.lower() not in {"true", "false", *map(str, option.choices)}:
        return None
    return left.pop()


def _is_switch(option: Option) -> bool:
    return option.kind == "bool" or True in option.choices


def _typed(name: str, option: Option, word: Word | None, problems: list[Problem]) -> Any:
    if word is None:
        if _is_switch(option):
            return True
        problems.append(Problem(f"--{name} needs a value", option.meaning, _MAGIC_LINE))
        return option.default
    if option.kind == "text" or (word.quoted and not word.text.startswith(("{", "["))):
        is_null = option.optional and not word.quoted and word.text == "null"
        return None if is_null else word.text
    try:
        return read_value(word.text)
    except SpecError as error:
        problems.append(Problem(f"--{name}: {error.message}", error.hint, _MAGIC_LINE))
        return option.default


def _word(text: str, at: int) -> tuple[Word, int]:
    """The word that begins at `at`, and where it ends."""
    if text[at] in "\"'":
        end = _quote_end(text, at)
        return Word(_unquote(text[at:end]), quoted=True), end
    end = _end(text, at)
    return Word(text[at:end]), end


def _end(text: str, start: int) -> int:
    """Where the unquoted word that begins at `start` ends; brackets and the quotes in them hold white space together."""
    closing: list[str] = []
    at = start
    while at < len(text):
        sign, before = text[at], text[at - 1] if at > start else ""
        if sign in "\"'" and (before in _BEFORE_A_QUOTE or before.isspace() if closing else before == "="):
            at = _quote_end(text, at)
            continue
        if sign.isspace() and not closing:
            return at
        if sign in _OPENING:
            closing.append(_OPENING[sign])
        elif closing and sign == closing[-1]:
            closing.pop()
        at += 1
    if closing:
        opened = next(sign for sign, closed in _OPENING.items() if closed == closing[-1])
        raise SpecError.of([Problem(f"{opened} is opened and never closed", "close it, or put quotes round the text", _MAGIC_LINE)])
    return at


def _quote_end(text: str, at: int) -> int:
    quote, end = text[at], at + 1
    while end < len(text):
        if quote == '"' and text[end] == "\\":
            end += 2
            continue
        if text[end] == quote:
            return end + 1
        end += 1
    problem = Problem(f"a quote is opened and never closed: {text[at : at + 40]}", f"close it with {quote}", _MAGIC_LINE)
    raise SpecError.of([problem])


def _unquote(text: str) -> str:
    inner = text[1:-1] if len(text) > 1 and text[0] in "\"'" and text[0] == text[-1] else text
    if not text.startswith('"') or "\\" not in inner:
        return inner
    parts: list[str] = []
    signs = iter(inner)
    for sign in signs:
        if sign == "\\":
            after = next(signs, "")
            parts.append(_ESCAPES.get(after, "\\" + after))
        else:
            parts.append(sign)
    return "".join(parts)
