"""A comparison as Markdown, for a report or an issue; what comes from data and models is escaped, so that it stays text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from nbtune_widgets.answers import Answer, answer_rows, approaches
from nbtune_widgets.breakdown import curve_rows
from nbtune_widgets.comparison import comparison_subtitle
from nbtune_widgets.formats import NOTHING, distinct, figure, one_line
from nbtune_widgets.grid import Grid
from nbtune_widgets.protocols import ComparisonView
from nbtune_widgets.side_by_side import sections

__all__ = ["comparison_markdown", "escaped"]

ROWS: Final = 20
_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~$#@]|:(?=//)|\.(?<=\bwww\.))")


def comparison_markdown(comparison: ComparisonView) -> str:
    """Scores, costs, verdict, learning curve, F1 by label, the first rows of each kind of disagreement, warnings and checks."""
    grid = Grid.of(comparison)
    parts = [f"# Comparison on {escaped(comparison.task_name, 80)}", escaped(comparison_subtitle(comparison), 200)]
    parts += [_list(comparison.warnings, "**Warning:** ")]
    if grid.scored:
        parts += [_table(grid.scores()), _headed("What follows", _list(comparison.verdict)), _headed("What it takes", _table(grid.costs()))]
        parts += [_headed("Learning curve", _table(curve_rows(comparison)))] if len(comparison.curve) else []
        parts += [_headed("F1 by label", _classes(comparison))] if comparison.kind == "classification" else []
    parts += [_headed("Outputs", _outputs(comparison))]
    parts += [_headed("Notes", _list(comparison.notes)), _headed("Checked", _list(comparison.checks))]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: object, limit: int = 400) -> str:
    """Untrusted text on one line, without anything that Markdown or the HTML in it would act on."""
    plain = one_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", plain)


def _headed(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _list(texts: Iterable[str], before: str = "") -> str:
    return "\n".join(f"- {before}{escaped(text, 600)}" for text in texts)


def _table(rows: Sequence[Sequence[str]], *, numeric: bool = True) -> str:
    if not rows:
        return ""
    head, *body = [" | ".join(escaped(cell, 200) or " " for cell in row) for row in rows]
    rule = " | ".join(["---", *["---:" if numeric else "---"] * (len(rows[0]) - 1)])
    return "\n".join(f"| {line} |" for line in (head, rule, *body))


def _classes(comparison: ComparisonView) -> str:
    names = approaches(comparison)
    found = [comparison.per_class(name) for name in names]
    if not found:
        return ""
    rows = [
        [str(label), *(figure(float(each["f1"].iloc[place])) for each in found), f"{int(found[0]['support'].iloc[place]):,}"]
        for place, label in enumerate(found[0].index)
    ]
    return _table([["label", *names, "rows"], *rows])


def _outputs(comparison: ComparisonView) -> str:
    names, rows = approaches(comparison), answer_rows(comparison)
    prompts = dict(zip([row.row for row in rows], distinct([row.prompt for row in rows], 120), strict=True))
    parts = []
    for title, meaning, chosen in sections(comparison, rows):
        if title == "All right":
            continue
        lines = [["row", "prompt", *(["expected"] if chosen[0].expected is not None else []), *names]]
        for row in chosen[:ROWS]:
            expected = [] if lines[0][2:3] != ["expected"] else [row.expected or NOTHING]
            lines.append([str(row.row), prompts[row.row], *expected, *(_said(row.answers.get(name)) for name in names)])
        told = f"**{title}**: {len(chosen):,} rows" + (f" ({escaped(meaning, 200)})" if meaning else "")
        parts.append(told + (f", the first {ROWS}" if len(chosen) > ROWS else "") + "\n\n" + _table(lines, numeric=False))
    return "\n\n".join(parts)


def _said(answer: Answer | None) -> str:
    if answer is None:
        return NOTHING
    return ("" if answer.right is None else "✓ " if answer.right else "✗ ") + answer.output.strip()
