"""Where a comparison's columns are good and bad: by class, by what they take for what, by length, and by training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from markupsafe import Markup

from nbtune_widgets.answers import approaches, records
from nbtune_widgets.formats import NOTHING, duration, figure, one_line
from nbtune_widgets.markup import join, table
from nbtune_widgets.pictures import learning_svg, steps_of
from nbtune_widgets.protocols import ComparisonView

__all__ = ["classes_html", "curve_rows", "learning_html", "slices_html"]

LABELS: Final = 40
MATRIX: Final = 16
"""Most labels of a confusion matrix that is drawn."""


def classes_html(comparison: ComparisonView) -> Markup:
    """F1 of each class by approach; then, folded, precision, recall and the confusion matrix of each."""
    if comparison.kind != "classification" or comparison.metric is None:
        return Markup("")
    names = approaches(comparison)
    found = {name: comparison.per_class(name) for name in names}
    labels = [str(label) for label in next(iter(found.values())).index][:LABELS] if found else []
    if not labels:
        return Markup("")
    support = next(iter(found.values()))["support"]
    rows = [
        [one_line(label, 40), *(figure(float(found[name]["f1"].iloc[place])) for name in names), f"{int(support.iloc[place]):,}"]
        for place, label in enumerate(labels)
    ]
    heads = ["label", *(one_line(name, 60) for name in names), "rows"]
    parts = [table("F1 by label", heads, rows, numeric=frozenset(range(1, len(heads))), named=True)]
    if len(support) > LABELS:
        words = f"{len(support) - LABELS:,} labels are left out here; comparison.per_class(approach) has all"
        parts.append(Markup('<p class="nbt-dim">{}</p>').format(words))
    parts += [_of_one(comparison, name, found[name]) for name in names]
    return Markup("<details><summary>By class</summary>{}</details>").format(join(parts))


def slices_html(comparison: ComparisonView) -> Markup:
    """The scores of short and long prompts, and of each label."""
    if comparison.metric is None:
        return Markup("")
    ways = [("length", "prompts by length")] + ([("label", "rows by expected label")] if comparison.kind == "classification" else [])
    quick = all(row.get("correct") is not None for row in records(comparison.outputs[["correct"]]))
    parts = []
    for by, title in ways:
        found = records(comparison.slices(by, intervals=quick))
        parts.append(_slices(found, approaches(comparison), f"{one_line(comparison.metric, 40)} of {title}"))
    note = Markup('<p class="nbt-dim">{}</p>').format('comparison.slices(by="contains:WORD") tells rows with a word from those without')
    return Markup("<details><summary>Slices</summary>{}{}</details>").format(join(parts), note)


def learning_html(comparison: ComparisonView) -> Markup:
    """The learning curve as a picture and, folded, as a table."""
    points = records(comparison.curve)
    if not points:
        return Markup("")
    head, *rows = curve_rows(comparison)
    body = table("", head, rows, numeric=frozenset(range(1, len(head))), named=True)
    folded = Markup("<details><summary>The learning curve as a table</summary>{}</details>").format(body)
    return learning_svg(points, str(comparison.metric)) + folded


def curve_rows(comparison: ComparisonView) -> list[list[str]]:
    """The learning curve as texts, its head first: an approach a row, a size a column; what was asked once stands alike in all."""
    points = records(comparison.curve)
    sizes = steps_of(points)
    rows = []
    for name in dict.fromkeys(str(point["approach"]) for point in points):
        of_size = {int(point["train_rows"]): point for point in points if point["approach"] == name}
        trained = sum(float(point["train_seconds"] or 0) for size, point in of_size.items() if size)
        cells = [_with_interval(of_size.get(size) or of_size.get(0)) for size in sizes]
        rows.append([one_line(name, 60), *cells, duration(trained) if trained else NOTHING])
    return [["approach", *(f"{size:,} rows" for size in sizes), "training of all"], *rows]


def _of_one(comparison: ComparisonView, name: str, found: Any) -> Markup:
    """Precision, recall, F1 and support of one approach beside its confusion matrix."""
    rows = [
        [one_line(label, 40), *(figure(float(row[key])) for key in ("precision", "recall", "f1")), f"{int(row['support']):,}"]
        for label, row in list(found.iterrows())[:LABELS]
    ]
    heads = ["label", "precision", "recall", "F1", "rows"]
    parts = [Markup("<div>{}</div>").format(table("", heads, rows, numeric=frozenset(range(1, 5)), named=True))]
    if len(found) <= MATRIX:
        parts.append(Markup("<div>{}</div>").format(_matrix(comparison.confusion(name))))
    side = Markup('<div class="nbt-curves">{}</div>').format(join(parts))
    return Markup("<details><summary>{}</summary>{}</details>").format(one_line(name, 60), side)


def _matrix(counts: Any) -> Markup:
    """The confusion matrix; a cell's shade is its share of the rows that expect the label."""
    labels, names = [str(label) for label in counts.index], [str(name) for name in counts.columns]
    head = join(Markup('<th scope="col" class="nbt-n">{}</th>').format(one_line(name, 20)) for name in names)
    body = []
    for label, row in zip(labels, counts.to_numpy().tolist(), strict=True):
        whole = max(1, sum(row))
        cells = join(_shaded(int(value), value / whole, right=name == label) for name, value in zip(names, row, strict=True))
        body.append(Markup('<tr><th scope="row">{}</th>{}</tr>').format(one_line(label, 30), cells))
    return Markup(
        '<div class="nbt-scroll"><table class="nbt-t nbt-matrix"><caption>{}</caption><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody>'
        "</table></div>"
    ).format("Expected (rows) by output (columns)", head, join(body))


def _shaded(count: int, part: float, *, right: bool) -> Markup:
    text = Markup("<b>{}</b>").format(count) if right else Markup("{}").format(count or NOTHING)
    shade = Markup("background:color-mix(in srgb,var(--nbt-{},{}) {}%,transparent)").format(
        "c" if right else "b", "#009e73" if right else "#d55e00", round(55 * part)
    )
    return Markup('<td class="nbt-n"{}>{}</td>').format(Markup(' style="{}"').format(shade) if count else Markup(""), text)


def _slices(found: Sequence[dict[str, Any]], names: Sequence[str], caption: str) -> Markup:
    heads = ["slice", *(one_line(name, 60) for name in names), "rows"]
    rows: list[list[str | Markup]] = []
    for part in list(dict.fromkeys(str(row["slice"]) for row in found))[:LABELS]:
        here = {str(row["approach"]): row for row in found if row["slice"] == part}
        cells = [_small_interval(here.get(name)) for name in names]
        rows.append([one_line(part, 60), *cells, f"{int(next(iter(here.values()))['rows']):,}"])
    return table(caption, heads, rows, numeric=frozenset(range(1, len(heads))), named=True)


def _small_interval(row: dict[str, Any] | None) -> Markup:
    if row is None:
        return Markup("{}").format(NOTHING)
    score, _, interval = _with_interval({**row, "score": row["score"]}).partition(" (")
    small = Markup("<br><small>{}</small>").format(interval.removesuffix(")")) if interval else Markup("")
    return Markup("{}{}").format(score, small)


def _with_interval(row: dict[str, Any] | None) -> str:
    if row is None:
        return NOTHING
    low, high = row.get("ci_low"), row.get("ci_high")
    return figure(row["score"]) + (f" ({figure(low)} to {figure(high)})" if low is not None and high is not None else "")
