"""A prompt search: the templates by their score, what it took, and the winner as text to copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from nbtune_widgets.answers import records
from nbtune_widgets.formats import NOTHING, count, figure, one_line, shown
from nbtune_widgets.markup import join, messages, page, table
from nbtune_widgets.protocols import SearchView

__all__ = ["search_html", "search_text"]

SHOWN: Final = 50
_LONGEST: Final = 600
_NUMERIC: Final = frozenset(range(2, 7))


def search_html(searches: Sequence[SearchView]) -> str:
    """Searches as static content: of each the templates, at most 50 of them, and the winner in full."""
    return page("Prompt search", join(_search(search) for search in searches))


def search_text(searches: Sequence[SearchView]) -> str:
    """The same in plain text, a template a line."""
    lines = []
    for search in searches:
        lines.append(one_line(search.label, 120))
        for row in records(search.table)[:SHOWN]:
            score, interval, dropped = _figures(search, row)
            after = "" if dropped == NOTHING else f", dropped after {dropped}"
            lines.append(f"  {score} ({interval}) on {row['rows']} rows{after}: {one_line(row['template'], 100)!r}")
        lines += [f"  {one_line(text, 600)}" for text in search.told]
        lines += ["  the winner:", *(f"    {line}" for line in shown(search.template, 10_000).splitlines())]
    return "\n".join(lines)


def _search(search: SearchView) -> Markup:
    rows = records(search.table)
    heads = ("template", "from", "rows", one_line(search.metric, 40), "95 % interval", "dropped after", "prompt tokens")
    cells = [_cells(search, row) for row in rows[:SHOWN]]
    left = [f"{len(rows) - SHOWN:,} more templates are in .table"] if len(rows) > SHOWN else []
    return join(
        (
            Markup('<p class="nbt-head"><span class="nbt-name">{}</span></p>').format(one_line(search.label, 120)),
            table("Templates by their score, the winner first", heads, cells, numeric=_NUMERIC),
            messages([*left, *search.told], "note", ""),
            Markup('<p class="nbt-key"><b>The winner</b></p><pre class="nbt-x">{}</pre>').format(shown(search.template, 10_000)),
        )
    )


def _cells(search: SearchView, row: dict[str, Any]) -> list[str | Markup]:
    score, interval, dropped = _figures(search, row)
    text = Markup('<span class="nbt-x">{}</span>').format(shown(row["template"], _LONGEST))
    return [text, one_line(row["origin"], 40), count(row["rows"]), score, interval, dropped, figure(row["prompt_tokens"])]


def _figures(search: SearchView, row: dict[str, Any]) -> tuple[str, str, str]:
    """(score, interval, after how many rows it was dropped)."""
    dropped = row["dropped_after"]
    after = NOTHING if dropped is None else f"{dropped} rows"
    return figure(row[search.metric]), f"{figure(row['ci_low'])} to {figure(row['ci_high'])}", after
