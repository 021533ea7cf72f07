"""All methods on a model as a table and as text."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nbtune.overview import LOW_RANK, QUANTIZATIONS, SECOND_TIER, MethodOnModel
from nbtune_widgets.formats import NOTHING, count, shown
from nbtune_widgets.markup import messages, page, table

__all__ = ["methods_html", "methods_text"]

HEADS = ("method", "tier", "trains", "of all", "what it is", "base held in", "merges", "paper")


def methods_html(found: Sequence[MethodOnModel], model: str) -> str:
    """A table, the method's paper as a link."""
    rows = [(*_cells(each)[:-1], _link(each.paper)) for each in found]
    body = table(f"Ways to adapt {shown(model, 80)}, at their defaults", HEADS, rows, numeric=frozenset({2, 3}))
    return page(f"methods on {model}", body + messages([LOW_RANK, SECOND_TIER], "info", ""))


def methods_text(found: Sequence[MethodOnModel], model: str) -> str:
    """The same in lines."""
    rows = [_cells(each) for each in found]
    name, _, trained, part = (max(len(row[column]) for row in rows) for column in range(4))
    lines = [
        f"{row[0]:{name}}  {row[1]}  {row[2]:>{trained}}  {row[3]:>{part}}  {row[4]} ({row[5]}; merges: {row[6]}; {row[7]})" for row in rows
    ]
    return "\n".join([f"ways to adapt {shown(model, 80)}: tier, parameters trained, their part of all", *lines, LOW_RANK, SECOND_TIER])


def _cells(each: MethodOnModel) -> tuple[str, ...]:
    trained, part = NOTHING, NOTHING
    if each.trained == 0:
        trained = "none"
    elif each.trained is not None and each.total:
        trained, part = count(each.trained), f"{100 * each.trained / each.total:.2f} %"
    what = f"cannot: {shown(each.refused, 200)}" if each.refused else each.summary
    held = "any base" if len(each.quantizations) == len(QUANTIZATIONS) else ", ".join(("16 or 32 bits", *each.quantizations))
    return each.name, str(each.tier), trained, part, what, held, "yes" if each.merges else "no", each.paper


def _link(paper: str) -> Markup:
    return Markup('<a href="{0}" target="_blank" rel="noopener noreferrer">{1}</a>').format(paper, paper.removeprefix("https://"))
