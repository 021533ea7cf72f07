"""The comparison as it is read: scores, what follows from them, where columns differ, what they said, and what was checked."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from nbtune_widgets.answers import AnswerRow, answer_rows, approaches, records
from nbtune_widgets.breakdown import classes_html, curve_rows, learning_html, slices_html
from nbtune_widgets.formats import one_line, shown
from nbtune_widgets.grid import Grid
from nbtune_widgets.markup import join, messages, page, whole_page
from nbtune_widgets.pictures import costs_svg
from nbtune_widgets.protocols import ComparisonView
from nbtune_widgets.side_by_side import outputs_html

__all__ = ["comparison_html", "comparison_page", "comparison_subtitle", "comparison_text"]

_TEXT_ROWS = 10


def comparison_html(comparison: ComparisonView) -> str:
    """The comparison as static content; where there is no score, the outputs alone.

    Of the outputs 200 rows are there at most; how many are left out is said.
    """
    grid = Grid.of(comparison)
    title = Markup('<p class="nbt-head"><span class="nbt-name">{}</span> <span class="nbt-dim">{}</span></p>').format(
        f"Comparison on {one_line(comparison.task_name, 80)}", comparison_subtitle(comparison)
    )
    scored = (
        [grid.scores_html(), _verdict(comparison), grid.costs_html(), costs_svg(grid.rows, grid.metric), learning_html(comparison)]
        if grid.scored
        else [_verdict(comparison)]
    )
    parts = [
        title,
        messages(comparison.warnings, "warning", "Warning"),
        *scored,
        outputs_html(comparison),
        *([classes_html(comparison), slices_html(comparison)] if grid.scored else []),
        messages(comparison.notes, "note", ""),
        _checks(comparison.checks),
    ]
    return page(f"Comparison on {comparison.task_name}", join(parts))


def comparison_page(comparison: ComparisonView) -> str:
    """The same as a page by itself."""
    return whole_page(f"Comparison on {one_line(comparison.task_name, 80)}", Markup(comparison_html(comparison)))  # noqa: S704  ours


def comparison_text(comparison: ComparisonView) -> str:
    """The comparison as plain text: the grid, the verdict, the warnings, and the first disagreements."""
    grid = Grid.of(comparison)
    lines = [f"comparison on {one_line(comparison.task_name)} · {comparison_subtitle(comparison)}"]
    if grid.scored:
        lines += _columns(grid.scores())
        lines += ["", *_columns(costs)] if (costs := grid.costs()) else []
        lines += ["", *_columns(curve_rows(comparison))] if len(comparison.curve) else []
    lines += [one_line(text, 400) for text in comparison.verdict]
    lines += [f"warning: {one_line(text, 400)}" for text in comparison.warnings]
    names, rows = approaches(comparison), answer_rows(comparison)
    for row in rows[:_TEXT_ROWS] if not grid.scored else [row for row in rows if row.rank < 2][:_TEXT_ROWS]:  # noqa: PLR2004
        said = "; ".join(
            f"{one_line(name, 40)} {_sign(row, name)}{one_line(row.answers[name].output, 60)!r}" for name in names if name in row.answers
        )
        wanted = f" expected {one_line(row.expected, 60)!r};" if row.expected is not None else ""
        lines.append(f"row {row.row}:{wanted} {said}")
    return "\n".join(lines)


def comparison_subtitle(comparison: ComparisonView) -> str:
    """The metric, and how many rows were answered."""
    number = len({record["row"] for record in records(comparison.outputs[["row"]])})
    if not Grid.of(comparison).scored:
        return f"{number:,} inputs"
    return f"{one_line(comparison.metric, 40)}, {number:,} test rows, 95 % intervals"


def _verdict(comparison: ComparisonView) -> Markup:
    if not comparison.verdict:
        return Markup("")
    said = join(Markup("<li>{}</li>").format(shown(text, 600)) for text in comparison.verdict)
    return Markup('<p class="nbt-key"><b>What follows</b></p><ul>{}</ul>').format(said)


def _checks(checks: Sequence[str]) -> Markup:
    if not checks:
        return Markup("")
    items = join(Markup('<li><span class="nbt-ok" aria-hidden="true">✓</span> {}</li>').format(shown(text, 500)) for text in checks)
    return Markup("<details><summary>Checked: {} things</summary><ul>{}</ul></details>").format(len(checks), items)


def _sign(row: AnswerRow, name: str) -> str:
    right = row.answers[name].right
    return "" if right is None else ("✓ " if right else "✗ ")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if index == 0 else text.rjust(width) for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
