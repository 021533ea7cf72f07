"""The grid: one row an approach with its score and interval, then what they said side by side, then what was checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from nbtune.metrics.scores import LESS_IS_BETTER
from nbtune_widgets.answers import AnswerRow, answer_rows, approaches, records
from nbtune_widgets.formats import NOTHING, count, distinct, duration, figure, one_line, shown, size
from nbtune_widgets.markup import join, mark, messages, page
from nbtune_widgets.protocols import ComparisonView

__all__ = ["comparison_html", "comparison_text"]

SHOWN: Final = 30
CAP: Final = 200
BUDGET: Final = 150_000
_TEXT_ROWS: Final = 10


def comparison_html(comparison: ComparisonView) -> str:
    """The comparison as static content; where there is no score, the outputs alone.

    At most 30 rows of outputs are open and 200 in all are there; how many are left out is said.
    """
    grid = _Grid.of(comparison)
    title = Markup('<p class="nbt-head"><span class="nbt-name">{}</span> <span class="nbt-dim">{}</span></p>').format(
        f"Comparison on {one_line(comparison.task_name, 80)}", _subtitle(comparison, grid)
    )
    parts = [
        title,
        messages(comparison.warnings, "warning", "Warning"),
        grid.html() if grid.scored else Markup(""),
        _verdict(comparison),
        _outputs(comparison),
        messages(comparison.notes, "note", ""),
        _checks(comparison.checks),
    ]
    return page(f"Comparison on {comparison.task_name}", join(parts))


def comparison_text(comparison: ComparisonView) -> str:
    """The comparison as plain text: the grid, the warnings, and the first disagreements."""
    grid = _Grid.of(comparison)
    lines = [f"comparison on {one_line(comparison.task_name)} · {_subtitle(comparison, grid)}"]
    if grid.scored:
        lines += _columns([grid.heads(), *(grid.cells(row) for row in grid.rows)])
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


def _subtitle(comparison: ComparisonView, grid: _Grid) -> str:
    number = len({record["row"] for record in records(comparison.outputs[["row"]])})
    rows = f"{number:,} test rows" if grid.scored else f"{number:,} inputs"
    return f"{one_line(comparison.metric, 40)}, {rows}, 95 % intervals" if grid.scored else rows


@dataclass(frozen=True)
class _Grid:
    metric: str
    rows: Sequence[dict[str, Any]]
    extra: tuple[str, ...]

    @classmethod
    def of(cls, comparison: ComparisonView) -> _Grid:
        rows = records(comparison.table)
        known = {"approach", comparison.metric, *_PARTS, *_COLUMNS}
        extra = tuple(key for key in (rows[0] if rows else {}) if key not in known and any(row.get(key) is not None for row in rows))
        return cls(comparison.metric or "", rows, extra)

    @property
    def scored(self) -> bool:
        return any(isinstance(row.get(self.metric), int | float) for row in self.rows)

    @property
    def best(self) -> float:
        best = min if self.metric in LESS_IS_BETTER else max
        return best(float(row[self.metric]) for row in self.rows if isinstance(row.get(self.metric), int | float))

    @property
    def columns(self) -> list[str]:
        return [name for name in _COLUMNS if any(row.get(name) is not None for row in self.rows)]

    def heads(self) -> list[str]:
        return [
            "approach",
            one_line(self.metric, 40),
            "95 % interval",
            *(_COLUMNS[name] for name in self.columns),
            *map(_words, self.extra),
        ]

    def cells(self, row: dict[str, Any]) -> list[str]:
        score = row.get(self.metric)
        low, high = row.get("ci_low"), row.get("ci_high")
        interval = f"{figure(low)} to {figure(high)}" if low is not None and high is not None else NOTHING
        rest = [_difference(row) if name == "difference" else _cell(name, row.get(name)) for name in (*self.columns, *self.extra)]
        best = "  (best)" if self._is_best(row) else ""
        return [one_line(row.get("approach"), 60) + best, figure(score), interval, *rest]

    def _is_best(self, row: dict[str, Any]) -> bool:
        return len(self.rows) > 1 and row.get(self.metric) == self.best

    def html(self) -> Markup:
        head = join(_th(text, numeric=index > 0) for index, text in enumerate(self.heads()))
        body = join(self._row_html(row) for row in self.rows)
        caption = f"{one_line(self.metric, 40)} by approach" + (
            "; p: paired test against the best other, adjusted over all pairs (Holm)" if "p_adjusted" in self.columns else ""
        )
        return Markup(
            '<div class="nbt-scroll"><table class="nbt-t"><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        ).format(caption, head, body)

    def _row_html(self, row: dict[str, Any]) -> Markup:
        cells = self.cells(row)
        best = self._is_best(row)
        name = Markup("{}{}").format(
            one_line(row.get("approach"), 60), Markup(' <span class="nbt-pill">best</span>') if best else Markup("")
        )
        score = Markup('<td class="nbt-n"><b>{}</b></td>').format(cells[1])
        interval = Markup('<td class="nbt-n">{} <small>{}</small></td>').format(self._bar(row), cells[2])
        names = (*self.columns, *self.extra)
        rest = join(
            Markup('<td class="nbt-n">{}</td>').format(_difference_html(row) if name == "difference" else text)
            for name, text in zip(names, cells[3:], strict=True)
        )
        css = Markup(' class="nbt-best"') if best else Markup("")
        return Markup('<tr{}><th scope="row">{}</th>{}{}{}</tr>').format(css, name, score, interval, rest)

    def _bar(self, row: dict[str, Any]) -> Markup:
        low, high, score = row.get("ci_low"), row.get("ci_high"), row.get(self.metric)
        if low is None or high is None or score is None:
            return Markup("")
        values = [value for each in self.rows for key in (self.metric, "ci_low", "ci_high") if (value := each.get(key)) is not None]
        left, right = min(0.0, *values), max(1.0, *values)
        at = [f"{2 + 116 * (value - left) / (right - left):.1f}" for value in (max(0.0, left), score, low, high)]
        return Markup(
            '<svg viewBox="0 0 120 14" width="120" height="14" aria-hidden="true" class="nbt-scale">'
            '<path d="M{0} 7H{1}" stroke="currentColor" stroke-opacity=".2" stroke-width="8"/>'
            '<path d="M{2} 7H{3}M{2} 3V11M{3} 3V11" stroke="currentColor" stroke-width="1.3" fill="none"/>'
            '<circle cx="{1}" cy="7" r="3" fill="{4}"/></svg>'
        ).format(*at, Markup("var(--nbt-a,#0072b2)"))


_PARTS: Final = ("ci_low", "ci_high", "versus", "difference_low", "difference_high", "rows", "kind", "p_value")
_COLUMNS: Final = {
    "difference": "against the best other",
    "p_adjusted": "p",
    "spread": "over seeds",
    "trainable_parameters": "trained parameters",
    "adapter_bytes": "on disk",
    "peak_memory_bytes": "peak memory",
    "train_seconds": "training",
    "train_tokens": "training tokens",
    "seconds": "answering",
    "prompt_tokens": "prompt tokens",
    "break_even_rows": "paid for after answers",
}


def _difference(row: dict[str, Any]) -> str:
    """Both sides of the interval have their sign, so that one sees whether it excludes 0."""
    value, low, high = (row.get(key) for key in ("difference", "difference_low", "difference_high"))
    if value is None:
        return NOTHING
    return _signed(value) + (f" ({_signed(low)} to {_signed(high)})" if low is not None and high is not None else "")


def _difference_html(row: dict[str, Any]) -> Markup:
    value, _, interval = _difference(row).partition(" (")
    versus = "" if row.get("versus") is None else f" vs {one_line(row['versus'], 60)}"
    small = Markup("<br><small>{}</small>").format(interval.removesuffix(")") + versus) if interval or versus else Markup("")
    return Markup("{}{}").format(value, small)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + figure(value)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if name == "p_adjusted":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004
    if name == "spread":
        return f"± {figure(value)}"
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("seconds"):
        return duration(float(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or name in _COLUMNS:
        return count(value)
    return figure(value) if isinstance(value, float) else one_line(value, 60)


def _words(name: str) -> str:
    return one_line(name.replace("_", " "), 40)


def _th(text: str, *, numeric: bool) -> Markup:
    return Markup('<th scope="col"{}>{}</th>').format(Markup(' class="nbt-n"') if numeric else Markup(""), text)


def _outputs(comparison: ComparisonView) -> Markup:
    names, rows = approaches(comparison), answer_rows(comparison)
    if not rows:
        return Markup("")
    expected = any(row.expected is not None for row in rows)
    heads = ["row", "prompt", *(["expected"] if expected else []), *(one_line(name, 60) for name in names)]
    head = join(_th(text, numeric=False) for text in heads)
    prompts = distinct([row.prompt for row in rows])
    drawn = [_output_row(row, prompt, names, expected=expected) for row, prompt in zip(rows[:CAP], prompts, strict=False)]
    kept = _within_budget(drawn)
    differ = sum(row.rank < 2 for row in rows)  # noqa: PLR2004
    caption = f"Outputs side by side: {differ:,} of {len(rows):,} rows differ" + (", these first" if 0 < differ < len(rows) else "")
    form = Markup(
        '<div class="nbt-scroll"><table class="nbt-t"><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    )
    parts = [form.format(caption if len(names) > 1 else "Outputs", head, join(kept[:SHOWN]))]
    if len(kept) > SHOWN:
        more = form.format("", head, join(kept[SHOWN:]))
        parts.append(Markup("<details><summary>{} more rows</summary>{}</details>").format(f"{len(kept) - SHOWN:,}", more))
    if len(kept) < len(rows):
        parts.append(
            Markup('<p class="nbt-dim">{} rows are left out here; all are in comparison.outputs</p>').format(f"{len(rows) - len(kept):,}")
        )
    return join(parts)


def _within_budget(rows: Sequence[Markup]) -> Sequence[Markup]:
    size = 0
    for index, row in enumerate(rows):
        size += len(row)
        if size > BUDGET and index:
            return rows[:index]
    return rows


def _output_row(row: AnswerRow, prompt: str, names: Sequence[str], *, expected: bool) -> Markup:
    text = Markup('<td{}><span class="nbt-x">{}</span></td>')
    cells = [Markup('<th scope="row" class="nbt-n nbt-dim">{}</th>').format(row.row), text.format(Markup(' class="nbt-p"'), prompt)]
    if expected:
        cells.append(text.format("", shown(NOTHING if row.expected is None else row.expected.strip(), 300)))
    for name in names:
        answer = row.answers.get(name)
        if answer is None:
            cells.append(Markup('<td class="nbt-none">{}</td>').format(NOTHING))
            continue
        said = shown(answer.output.strip(), 300)
        words = Markup('<span class="nbt-x">{}</span>').format(said) if said else Markup('<span class="nbt-none">(empty)</span>')
        cells.append(Markup("<td>{} {}</td>").format(mark(answer.right), words))
    return Markup("<tr>{}</tr>").format(join(cells))


def _verdict(comparison: ComparisonView) -> Markup:
    if not comparison.verdict:
        return Markup("")
    said = join(Markup("<li>{}</li>").format(shown(text, 600)) for text in comparison.verdict)
    return Markup('<p class="nbt-key"><b>What follows</b></p><ul>{}</ul>').format(said)


def _checks(checks: Sequence[str]) -> Markup:
    if not checks:
        return Markup("")
    items = join(Markup('<li><span class="nbt-ok" aria-hidden="true">✓</span> {}</li>').format(shown(text, 500)) for text in checks)
    return Markup('<p class="nbt-key"><b>Checked</b></p><ul>{}</ul>').format(items)


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
