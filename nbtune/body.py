"""Cell bodies: YAML 1.2, read and written so that nothing is silently taken for something else.

PyYAML reads `[yes, no]` as booleans, `1e-3` as text and `012` as ten, keeps the last of two equal keys and makes
`prompt: Ticket #{{ id }}` into "Ticket". Here values follow the YAML 1.2 core schema, and what would be read otherwise
than it looks is refused with its line. The YAML library gives the events only; what they mean is decided in this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import Problem, SpecError

if TYPE_CHECKING:
    from ruamel.yaml.error import YAMLError

__all__ = ["Body", "read_body", "read_value", "write_body"]

TEMPLATES: Final = frozenset({"prompt", "completion", "system"})
DEPTH_LIMIT: Final = 20
_QUOTE_IT: Final = "put quotes round it, or use |"
_WRITE_LINES: Final = "write one `key: value` a line, or a list of `- item` lines"

_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_INT: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DIGITS_LIMIT: Final = 400


@dataclass(frozen=True)
class Body:
    """A cell's body as plain Python values; `lines` has the cell's line of each top-level key (of each index, as text, for a list)."""

    values: dict[str, Any] | list[Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def read_body(text: str, *, first_line: int = 2) -> Body:
    """The values of a cell's body; `first_line` is the number of its first line in the cell (the magic's own line is 1).

    An empty body is an empty mapping. Keys are always text. A block scalar's one final newline is dropped.

    Raises:
        SpecError: with every problem found, each with its line.
    """
    reader = _Reader(text, first_line)
    value, lines = reader.document()
    if not reader.problems and value is not None and not isinstance(value, dict | list):
        reader.problems.append(Problem(f"the body is only the text {_short(str(value))}", _WRITE_LINES, first_line))
    if reader.problems:
        raise SpecError.of(reader.problems)
    return Body({} if value is None else value, lines)


def read_value(text: str) -> Any:
    """The value of one flag: a flow list or mapping, a quoted text, or a plain word by the rules of `read_body`.

    Raises:
        SpecError: the text begins like a list, a mapping or a quoted text and is none.
    """
    word = text.strip()
    if not word.startswith(("{", "[", '"', "'")):
        return _resolve(word)
    reader = _Reader(word, 1, lines_matter=False)
    value, _ = reader.document()
    if reader.problems:
        raise SpecError.of(reader.problems)
    return value


def write_body(values: Mapping[str, Any]) -> str:
    """The body that `read_body` reads as `values`: one key a line, texts of several lines as blocks."""
    return "".join(f"{_write_text(str(key), '')}: {_write(value)}\n" for key, value in values.items())


class _Reader:
    """Builds plain values out of YAML events (untyped: the library is not imported here) and collects what is wrong on the way."""

    def __init__(self, text: str, first_line: int, *, lines_matter: bool = True) -> None:
        self.text = text
        self.source = text.splitlines()
        self.first_line = first_line
        self.lines_matter = lines_matter
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}

    def document(self) -> tuple[Any, dict[str, int]]:
        """The one document's value (None where there is none) and the lines of its top-level entries."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        value: Any = None
        documents = 0
        try:
            events = iter(YAML(typ="safe", pure=True).parse(self.text))
            for event in events:
                kind = type(event).__name__
                if kind == "DocumentStartEvent":
                    documents += 1
                    if documents > 1:
                        self._problem("a line of --- begins a second document", "one cell is one document: take the line out", event)
                        break
                    if getattr(event, "version", None) or getattr(event, "tags", None):
                        self._problem("a % line before --- is not understood", "take it out", event)
                elif kind not in ("StreamStartEvent", "StreamEndEvent", "DocumentEndEvent"):
                    value = self._node(event, events, depth=0)
        except YAMLError as error:
            self._syntax(error)
        return value, self.lines

    def _node(self, event: Any, events: Iterator[Any], *, depth: int, key: str = "") -> Any:
        kind = type(event).__name__
        if kind == "AliasEvent":
            self._problem(
                f"* begins an alias in {_short(self._rest(event))}", "put quotes round the text: aliases are not understood", event
            )
            return None
        if getattr(event, "tag", None) is not None:
            self._problem(f"! begins a tag in {_short(self._rest(event))}", "put quotes round the text: tags are not understood", event)
        if getattr(event, "anchor", None) is not None:
            self._problem(
                f"& begins an anchor in {_short(self._rest(event))}", "put quotes round the text: anchors are not understood", event
            )
        if kind == "ScalarEvent":
            return self._scalar(event, key)
        if depth >= DEPTH_LIMIT:
            problem = Problem(f"more than {DEPTH_LIMIT} levels of nesting", "nest less", self._line(event.start_mark.line))
            raise SpecError.of([*self.problems, problem])
        if self.text.startswith("{{", event.start_mark.index):
            self._problem("{{ stands without quotes", _QUOTE_IT, event)
        build = self._mapping if kind == "MappingStartEvent" else self._sequence
        return build(events, depth)

    def _mapping(self, events: Iterator[Any], depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in events:
            if type(event).__name__ == "MappingEndEvent":
                break
            key = self._key(event, events, depth)
            value = self._node(next(events), events, depth=depth + 1, key=key or "")
            if key is None:
                continue
            if key in values:
                self._problem(f"{key!r} is given twice", "keep one of them", event)
            elif depth == 0:
                self.lines[key] = event.start_mark.line + self.first_line
            values[key] = value
        return values

    def _key(self, event: Any, events: Iterator[Any], depth: int) -> str | None:
        """A key is the text as written, whatever it looks like; None where it is refused."""
        if type(event).__name__ != "ScalarEvent":
            self._node(event, events, depth=depth + 1)
            self._problem("a key must be one word, not a list or a mapping", _WRITE_LINES, event)
            return None
        text = str(event.value)
        plain = event.style is None
        if event.tag is not None or event.anchor is not None or (plain and text == "<<"):
            self._problem(f"{_short(self._rest(event))}: tags, anchors and merge keys are not understood", "write the keys out", event)
            return None
        if plain and not text:
            self._problem("a key is missing before ':'", _WRITE_LINES, event)
            return None
        return text

    def _sequence(self, events: Iterator[Any], depth: int) -> list[Any]:
        values: list[Any] = []
        for event in events:
            if type(event).__name__ == "SequenceEndEvent":
                break
            if depth == 0:
                self.lines[str(len(values))] = event.start_mark.line + self.first_line
            values.append(self._node(event, events, depth=depth + 1))
        return values

    def _scalar(self, event: Any, key: str) -> Any:
        text = str(event.value)
        if event.style in ("|", ">"):
            return text.removesuffix("\n")
        if event.style is not None:
            return text
        if "{{" in text:
            self._problem("{{ stands without quotes", _QUOTE_IT, event)
        elif key in TEMPLATES:
            self._template(event, key)
        return _resolve(text)

    def _template(self, event: Any, key: str) -> None:
        """An unquoted template loses what follows a # and its line breaks: both are refused."""
        end = event.end_mark
        line = self.source[end.line] if end.line < len(self.source) else ""
        rest = line[end.column :]
        if rest.lstrip().startswith("#"):
            self._problem(f"{_short(rest.strip())} after the {key} would be taken for a comment", _QUOTE_IT, event)
        elif "\n" in self.text[event.start_mark.index : end.index].rstrip():
            self._problem(
                f"the {key} has several lines but no |, so its line breaks would be lost", f"write `{key}: |` and the text below it", event
            )

    def _syntax(self, error: YAMLError) -> None:
        mark = getattr(error, "problem_mark", None)
        opened = getattr(error, "context_mark", None)
        about = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
        context = str(getattr(error, "context", None) or "")
        at = mark.line if mark is not None else self._line_of_odd_character(error)
        message, hint, from_opening = _in_plain_words(about, context)
        if (from_opening and opened is not None) or (about.startswith("could not find expected ':'") and opened is not None):
            at = opened.line
        elif "document start" in about:
            at = next((number for number, line in enumerate(self.source) if line.startswith("%")), at)
        line = self.source[at] if at < len(self.source) else ""
        if "{{" in line and not re.search(r"""["'|>]""", line.partition(":")[2].strip()[:1]):
            message, hint = "{{ stands without quotes", _QUOTE_IT
        if not any(problem.line == self._line(at) for problem in self.problems):
            shown = f": {_short(line.strip())}" if line.strip() else ""
            self.problems.append(Problem(message + shown, hint, self._line(at)))

    def _line_of_odd_character(self, error: YAMLError) -> int:
        return self.text.count("\n", 0, getattr(error, "position", 0) or 0)

    def _problem(self, message: str, hint: str, event: Any) -> None:
        line = self._line(event.start_mark.line)
        if line is None or all(problem.line != line for problem in self.problems):
            self.problems.append(Problem(message, hint, line))

    def _line(self, index: int) -> int | None:
        return index + self.first_line if self.lines_matter else None

    def _rest(self, event: Any) -> str:
        mark = event.start_mark
        return self.source[mark.line][mark.column :] if mark.line < len(self.source) else ""


def _in_plain_words(about: str, context: str) -> tuple[str, str, bool]:
    """(message, hint, whether the place where it was opened is the one to show) of the YAML library's complaint."""
    if "mapping values are not allowed" in about:
        return "a second ':' in an unquoted value, or wrong indentation", _QUOTE_IT, False
    if "quoted scalar" in context and "end of stream" in about:
        return "a quote is opened and never closed", "close it, or use |", True
    if "quoted scalar" in context and "document separator" in about:
        return "a quote is opened and never closed", "close it, or use |", True
    if "escape" in about or "escape" in context:
        return "a \\ in double quotes begins no known escape", "use single quotes, or write \\\\", False
    if "flow" in context:
        bracket = "[" if "sequence" in context else "{"
        return f"{bracket} is opened and not closed as it should be", "close it, or put quotes round the text", True
    if "\\t" in about or "tab" in about:
        return "a tab stands where spaces are wanted", "indent with spaces", False
    if "cannot start any token" in about:
        return "a value cannot begin with this sign", _QUOTE_IT, False
    if "could not find expected ':'" in about:
        return "this line is not `key: value`", "add the colon, or indent the lines that belong to a | above", False
    if "block end" in about or "block collection" in context or "block mapping" in context:
        return "this line does not fit the lines above", "indent all keys alike, and do not mix `key:` with `- item`", False
    if "special characters" in about:
        return "an invisible control character is in the text", "delete it, or write it as an escape in double quotes", False
    if "document start" in about:
        return "this line is not YAML", "a magic stands in a cell's first line only; below it, " + _WRITE_LINES, False
    return f"malformed YAML ({about})", _WRITE_LINES, False


def _resolve(text: str) -> Any:
    """The value of an unquoted word by the YAML 1.2 core schema: `yes` is text, `1e-3` a float, `012` twelve."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) < _DIGITS_LIMIT:
        if _INT.fullmatch(text):
            return int(text)
        if re.fullmatch(r"0o[0-7]+|0x[0-9a-fA-F]+", text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    special = _SPECIAL.fullmatch(text)
    if special:
        return float(special.group(0).replace(".", "", 1))
    return text


def _write(value: Any) -> str:
    if isinstance(value, str):
        return _write_block(value) if _is_block(value) else _write_text(value, "")
    return _write_flow(value)


def _write_flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_write_text(str(key), ',[]{}:')}: {_write_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return _write_text(value, ",[]{}")
    if isinstance(value, Sequence | set | frozenset):
        return "[" + ", ".join(_write_flow(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    return repr(value) if isinstance(value, int) else _write_text(str(value), ",[]{}")


def _write_text(text: str, forbidden: str) -> str:
    """Plain where it reads back as the same text and looks harmless, else in double quotes."""
    harmless = (
        re.fullmatch(r"[A-Za-z0-9_./~(<][^\n\r\t#\"'&*!|>%@`{}\[\],]*", text) is not None and text.isprintable() and text == text.strip()
    )
    if harmless and ": " not in text and not text.endswith(":") and not any(sign in text for sign in forbidden) and _resolve(text) == text:
        return text if text not in ("---", "...", "<<") and not text.startswith(("--- ", "... ")) else f'"{text}"'
    return '"' + "".join(_escape(character) for character in text) + '"'


def _escape(character: str) -> str:
    known = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if character in known:
        return known[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004


def _is_block(text: str) -> bool:
    """A block says several lines as they are; texts it would change (outer white space, odd characters) are quoted instead."""
    lines = text.split("\n")
    return len(lines) > 1 and all(line.isprintable() and line == line.strip() for line in lines) and bool(lines[0] and lines[-1])


def _write_block(text: str) -> str:
    return "|\n" + "\n".join(f"  {line}" if line else "" for line in text.split("\n"))


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")  # noqa: PLR2004
