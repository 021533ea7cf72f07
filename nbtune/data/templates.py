"""Prompt and completion templates: Jinja2's `{{ column }}`, `{% if %}`, `{% for %}` and a few filters, and nothing else.

A template reads columns, never attributes or items, and calls nothing; values are put in as they are and never read as templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

from nbtune.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from jinja2 import Template as JinjaTemplate
    from jinja2 import nodes

__all__ = ["FILTERS", "Template"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILTERS: Final = _names(
    "abs capitalize count d default first float int join last length list lower replace reverse round sort string "
    "striptags title tojson trim truncate unique upper wordcount"
)
"""The filters a template may use; those that read attributes or are random are not among them."""

_NODES: Final = _names(
    "Template Output TemplateData Name Const List Tuple Filter Test If CondExpr Compare Operand And Or Not Concat Add Sub Neg Pos Keyword"
)
_MOST_ARGUMENTS: Final = {"join": 1, "sort": 2, "unique": 1}  # the next one would be an attribute
_JINJAS_OWN: Final = frozenset(("self", "super", "caller"))
_LOOP: Final = frozenset(("index", "index0", "first", "last", "length"))
_WHAT: Final = {
    "Getattr": "reads an attribute",
    "Getitem": "reads an item",
    "Call": "calls a function",
    "Include": "includes a file",
    "Import": "imports a file",
    "FromImport": "imports a file",
    "Extends": "extends a file",
    "Macro": "defines a macro",
    "Assign": "sets a variable",
    "AssignBlock": "sets a variable",
}


class Template:
    """A template of one text; `fields` are the columns it reads, in order of appearance.

    A column whose name is no identifier ("Ticket text") is read by its name with `_` in place of each other character.

    Raises:
        DataError: a syntax error (with its line), or anything but columns, if, for, filters and literals.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._compiled, self.fields = _compile(source)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for a row. Values that are not text are written as Python's `str` writes them.

        Raises:
            DataError: a column that the row lacks, a column without a value (None) that the template needs.
        """
        from jinja2 import TemplateError

        values = {name: row[column] for name, column in self.columns(row).items()}
        missing = _missing_type()
        given = {name: missing(name=name) if value is None else value for name, value in values.items()}
        try:
            return self._compiled.render(given)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            self._refuse(error, [name for name in self.fields if values[name] is None])

    def _refuse(self, error: Exception, empty: list[str]) -> NoReturn:
        if empty:
            listed = ", ".join(repr(name) for name in empty)
            msg = f"no value in column {listed}"
            raise DataError(msg, hint=f"drop such rows, fill them, or write {{% if {empty[0]} %}}...{{% endif %}}") from None
        msg = f"the template cannot be filled: {error}"
        raise DataError(msg, hint=f"template: {self.source[:80]!r}") from None

    def columns(self, row: Mapping[str, Any]) -> dict[str, str]:
        """{name in the template: column of the row}.

        Raises:
            DataError: a column that the row lacks.
        """
        found: dict[str, str] = {}
        for name in self.fields:
            column = name if name in row else next((other for other in row if re.sub(r"\W", "_", other) == name), None)
            if column is None:
                listed = ", ".join(list(row)[:12])
                near = did_you_mean(name, row)
                hint = near if near.startswith("did") else "write the name of a column between {{ and }}"
                msg = f"the template reads column {name!r}, the data has: {listed}"
                raise DataError(msg, hint=hint)
            found[name] = column
        return found


@cache
def _missing_type() -> Any:
    """What stands for a value that is not there: false in a condition, `default`-able, an error wherever it is used."""
    from jinja2 import StrictUndefined

    class Missing(StrictUndefined):
        def __bool__(self) -> bool:  # type: ignore[override]
            return False

    return Missing


def _compile(source: str) -> tuple[JinjaTemplate, tuple[str, ...]]:
    from jinja2 import StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True, finalize=_text)
    environment.globals.clear()
    # Jinja2's own writes < as \u003c, for HTML's sake.
    environment.filters["tojson"] = _tojson
    environment.tests["none"] = lambda value: value is None or isinstance(value, _missing_type())
    try:
        tree = environment.parse(source)
        fields = _fields(tree)
        return environment.from_string(source), fields
    except TemplateSyntaxError as error:
        line = source.splitlines()[error.lineno - 1].strip() if source.strip() else ""
        hint = f"it reads: {line[:80]!r}; a column is written {{{{ name }}}}"
        if "got" in (error.message or "") and re.search(r"\{\{\s*\w+[ -]\w+", line):
            hint = "a column name with spaces is written with _ instead: {{ Ticket_text }}"
        msg = f"line {error.lineno} of the template: {error.message}"
        raise DataError(msg, hint=hint) from None


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _text(value: Any) -> str:
    """What a value is written as; a None inside a list is refused here, a None column before."""
    from jinja2 import UndefinedError

    if value is None:
        msg = "a value is None"
        raise UndefinedError(msg)
    return str(value)


def _fields(tree: nodes.Template) -> tuple[str, ...]:
    """The names read and not bound by a loop, in order.

    Raises:
        DataError: a node that templates may not hold.
    """
    found: dict[str, None] = {}
    _walk(tree, frozenset(), found)
    return tuple(found)


def _walk(node: nodes.Node, bound: frozenset[str], found: dict[str, None]) -> None:
    from jinja2 import nodes

    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop" and "loop" in bound:
        if node.attr in _LOOP:
            return
    elif isinstance(node, nodes.For) and not node.recursive:
        _walk_loop(node, bound, found)
        return
    elif type(node).__name__ in _NODES:
        _check(node)
        if isinstance(node, nodes.Name) and node.name not in bound:
            found[node.name] = None
        for child in node.iter_child_nodes():
            _walk(child, bound, found)
        return
    raise _refused(node)


def _walk_loop(node: nodes.For, bound: frozenset[str], found: dict[str, None]) -> None:
    from jinja2 import nodes

    _walk(node.iter, bound, found)
    targets = [node.target] if isinstance(node.target, nodes.Name) else node.target.find_all(nodes.Name)
    inner = bound | {target.name for target in targets} | {"loop"}
    for child in (*([node.test] if node.test else []), *node.body):
        _walk(child, inner, found)
    for child in node.else_:
        _walk(child, bound, found)


def _check(node: nodes.Node) -> None:
    from jinja2 import nodes

    if isinstance(node, nodes.Name) and node.name in _JINJAS_OWN:
        msg = f"line {node.lineno} of the template: {node.name!r} is a word of the template language and cannot name a column"
        raise DataError(msg, hint="rename the column")
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        near = did_you_mean(node.name, FILTERS)
        msg = f"line {node.lineno} of the template: there is no filter {node.name!r}"
        raise DataError(msg, hint=near if near.startswith("did") else f"known: {', '.join(sorted(FILTERS))}")
    if isinstance(node, nodes.Filter) and _takes_attribute(node):
        msg = f"line {node.lineno} of the template reads an attribute through the filter {node.name!r}"
        raise DataError(msg, hint="a template reads whole columns; make a column of what you need")


def _takes_attribute(node: nodes.Filter) -> bool:
    most = _MOST_ARGUMENTS.get(node.name, len(node.args))
    return len(node.args) > most or any(word.key == "attribute" for word in node.kwargs) or bool(node.dyn_args or node.dyn_kwargs)


def _refused(node: nodes.Node) -> DataError:
    kind = type(node).__name__
    what = _WHAT.get(kind, f"holds {kind.lower()!r}, which templates may not")
    return DataError(
        f"line {node.lineno} of the template {what}",
        hint="a template may hold {{ column }}, if, for, filters and literals; make a column of what you need beforehand",
    )
