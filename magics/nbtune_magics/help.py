"""`--help`: every option of a spec, grouped, with its default, range, choices and other names. Nothing is written twice."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nbtune.spec import Option, Spec
    from nbtune_magics.magic import Magic

__all__ = ["bounds", "help_text"]

WIDTH: Final = 100
_INDENT: Final = " " * 6
_BOUNDS: Final = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def help_text(magic: Magic, words: tuple[str, ...]) -> str:
    """What `magic` is for, how it is called, and its options; `words` may name the method or approach whose options are told."""
    names, parts_of = list(magic.names()), list(magic.parts())
    known = words if words and words[0] in names else ()
    spec = magic.spec(known)
    parts = [magic.usage, "", *textwrap.wrap(magic.about, WIDTH)]
    if names or parts_of:
        shown = parts_of or names
        width = max(map(len, shown)) + 4
        parts += ["", magic.choice + ":", *(_named(name, magic.describe(name), width) for name in shown)]
    inner = magic.part_spec(words[0]) if words and words[0] in parts_of else None
    if inner is not None:
        parts += ["", f"{words[0]}: {{option: value, ...}} in the body:"]
        parts += [line for item in inner.options() for line in _option(item, inner, flags=False)]
    elif parts_of:
        parts += ["", f"  %%{magic.name} {parts_of[0]} --help tells what may stand in {parts_of[0]}: {{...}}, and so for each"]
    if magic.body:
        parts += ["", *textwrap.wrap("body: " + magic.body, WIDTH, subsequent_indent="  ")]
    options = [*(spec.options() if spec is not None else ()), *magic.own]
    ordered = sorted(options, key=lambda item: _ORDER.get(item.group, 0))
    for group, items in groupby(ordered, key=lambda item: item.group):
        title = known[0] if known and group == "method" else group
        parts += ["", *([f"{title}:"] if title != "method" or known else ["options:"])]
        for item in items:
            parts += _option(item, spec)
    parts += ["", "  -h, --help", _INDENT + "this text"]
    return "\n".join(parts)


_ORDER: Final = {"method": 0, "training": 1, "run": 2, "notebook": 3}


def _named(name: str, meaning: str, width: int) -> str:
    return f"  {name:<{width - 2}}{meaning}".rstrip()


def _option(item: Option, spec: type[Spec] | None, *, flags: bool = True) -> list[str]:
    mark = "--" if flags else ""
    value = " " + _shape(item) if item.kind != "bool" or not flags else ""
    others = f"  (also {mark}{f', {mark}'.join(item.aliases)})" if item.aliases else ""
    facts = [item.meaning, *bounds(spec, item.name), _default(item)]
    text = "; ".join(fact for fact in facts if fact)
    name = item.flag if flags else f"{item.name}:"
    return [f"  {name}{value}{others}", *textwrap.wrap(text, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)]


def _shape(item: Option) -> str:
    if item.choices:
        return "|".join(_written(choice) for choice in item.choices)
    shapes = {"int": "NUMBER", "float": "NUMBER", "bool": "true|false", "text": "TEXT", "words": "WORD or [WORD, ...]"}
    return shapes.get(item.kind, "VALUE")


def _default(item: Option) -> str:
    if item.required:
        return "needed"
    if item.default in (None, "", ()) or not isinstance(item.default, bool | int | float | str | tuple):
        return ""
    return f"default {_written(item.default)}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def bounds(spec: type[Spec] | None, name: str) -> list[str]:
    """The limits of a number in words, such as "at least 1"; empty for what has none."""
    info = spec.model_fields.get(name) if spec is not None else None
    found = info.metadata if info is not None else ()
    return [f"{words} {_plain(getattr(item, side))}" for item in found for side, words in _BOUNDS if getattr(item, side, None) is not None]


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
