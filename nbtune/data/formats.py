"""How rows are laid out where no prompt is written for them: known by their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nbtune.data.conversations import needs_turns
from nbtune.data.rows import Row
from nbtune.errors import DataError

__all__ = ["Layout", "layout_of"]


@dataclass(frozen=True)
class Layout:
    """What a layout says in place of the user: templates and kind; or, of conversations, the column of their turns ("": several).

    `reads` are the columns that it knows; whatever else a row has is not looked at.
    """

    name: str
    prompt: str
    completion: str | None
    reads: frozenset[str]
    kind: str | None = None
    turns: str | None = None


_NEEDS: Final[Mapping[str, frozenset[str]]] = {
    "messages": frozenset({"messages"}),
    "sharegpt": frozenset({"conversations"}),
    "prompt-completion": frozenset({"prompt", "completion"}),
    "alpaca": frozenset({"instruction", "output"}),
    "tagging": frozenset({"tokens", "tags"}),
    "text": frozenset({"text"}),
}
"""The columns of each, the likeliest first."""
_MAY: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("system",),
    "sharegpt": ("system",),
    "alpaca": ("input", "context", "system", "history"),
}
"""Columns that are read where they are there: LLaMA-Factory's beside ShareGPT's and Alpaca's, Dolly's name of Alpaca's input."""
_TURNS: Final = "{{ messages }}"


def layout_of(rows: Sequence[Row], wanted: str) -> Layout:
    """The layout of that name, or with "auto" the one that the columns show; `rows` are those of all parts.

    Raises:
        DataError: there is none, or the columns are not those of the layout that is wanted.
    """
    columns = set(rows[0])
    known = "; ".join(f"{name}: {', '.join(sorted(needs))}" for name, needs in _NEEDS.items())
    if wanted != "auto" and not _NEEDS[wanted] <= columns:
        lacking = ", ".join(sorted(_NEEDS[wanted] - columns))
        raise DataError(f"format {wanted} needs the column {lacking}, and there are {_listed(rows[0])}", hint=f"layouts: {known}")
    name = wanted if wanted != "auto" else next((name for name, needs in _NEEDS.items() if needs <= columns), "")
    if name == "text" and wanted == "auto" and len(columns - {"file"}) > 1:
        name = ""
    if not name:
        hint = f"write it, with {{{{ column }}}} for: {_listed(rows[0])}; it may be left out for rows of {known}"
        raise DataError("prompt is missing", hint=hint)
    return _layout(name, rows)


def _layout(name: str, rows: Sequence[Row]) -> Layout:
    row, reads = rows[0], _NEEDS[name].union(_MAY.get(name, ()))
    if name == "tagging":
        return Layout(name, "{{ tokens }}", "{{ tags }}", reads, kind="tagging")
    if name == "text":
        return Layout(name, "{{ text }}", None, reads, kind="text")
    if name == "alpaca" and not any(needs_turns(row) for row in rows):
        more = "".join(f"{{% if {column} %}}\n\n{{{{ {column} }}}}{{% endif %}}" for column in ("input", "context") if column in row)
        return Layout(name, "{{ instruction }}" + more + "\n\n", "{{ output }}", reads)
    if name == "prompt-completion" and not isinstance(row["prompt"], list):
        return Layout(name, "{{ prompt }}", "{{ completion }}", reads)
    column = {"messages": "messages", "sharegpt": "conversations"}.get(name, "")
    return Layout("messages", _TURNS, _TURNS, reads, kind="generation", turns=column)


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(list(row)[:12])
