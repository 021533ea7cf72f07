"""Scores against what they cost, and the learning curve, as inline SVG: no script, no font, told by shape and number beside colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from markupsafe import Markup

from nbtune.metrics.scores import LESS_IS_BETTER
from nbtune_widgets.costs import COSTS, Cost, Scale
from nbtune_widgets.curves import ticks
from nbtune_widgets.formats import figure, one_line
from nbtune_widgets.markup import join

__all__ = ["DRAWN", "SORTS", "costs_svg", "learning_svg", "steps_of"]

SORTS: Final = {"prompting": "● prompting", "tuned": "■ tuned", "floor": "▲ to be beaten", "other": "◆ other"}
DRAWN: Final = 8
"""Most lines of a learning curve."""
_COLOURS: Final = {"a": "#0072b2", "b": "#d55e00", "c": "#009e73", "d": "#8c6bb1"}
_OF_SORT: Final = {"prompting": "a", "tuned": "b", "floor": "d", "other": "c"}
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")
_SHAPES: Final = {
    "prompting": "M{x} {y}m-4.2 0a4.2 4.2 0 1 0 8.4 0a4.2 4.2 0 1 0 -8.4 0",
    "tuned": "M{x} {y}m-4 -4h8v8h-8z",
    "floor": "M{x} {y}m0 -4.8l4.8 8.4h-9.6z",
    "other": "M{x} {y}m0 -5l5 5l-5 5l-5 -5z",
}
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 14.0, 10.0, 34.0
_SHOWN: Final = ("seconds", "train_seconds", "trainable_parameters")
Row = Mapping[str, Any]


def costs_svg(rows: Sequence[Row], metric: str) -> Markup:
    """The scores with their intervals against the seconds of an answer and, where anything is trained, against what training took.

    A point is named by its number, which the list below gives; what is not finite is left out.
    """
    points = [(number, row) for number, row in enumerate(rows, start=1) if _finite(row.get(metric))]
    pictures = []
    for name in _SHOWN:
        cost = COSTS[name]
        known = [(number, row, value) for number, row in points if (value := cost.of(row)) is not None]
        if len(known) > 1 and any(value > 0 for _, _, value in known):
            pictures.append(_picture(known, metric, cost))
    if not pictures:
        return Markup("")
    return Markup('<div class="nbt-curves">{}</div>{}').format(join(pictures), _numbers(points))


def learning_svg(points: Sequence[Row], metric: str) -> Markup:
    """The score over the training rows, a line an approach; what takes none of them is level. At most `DRAWN`, the best in the end."""
    names = _drawn(points, metric)
    shown = [point for point in points if point["approach"] in names and _finite(point["score"])]
    sizes = sorted({float(point["train_rows"]) for point in shown} - {0.0})
    if len(sizes) < 2:  # noqa: PLR2004
        return Markup("")
    scale = Scale.of(sizes, lambda value: f"{value:,.0f}")
    scale = Scale(scale.low, scale.high, tuple((scale.at(size), f"{size:,.0f}") for size in sizes), scale.powers, none=None)
    plot = _Plot.of(scale, shown, "score", 480, 230)
    lines = [_line([point for point in shown if point["approach"] == name], sizes, place, plot) for place, name in enumerate(names)]
    keys = join(_line_key(name, place) for place, name in enumerate(names))
    heading = Markup('<p class="nbt-key"><b>{} by training rows</b> {}</p>').format(one_line(metric, 40), keys)
    label = f"{one_line(metric, 40)} over {sizes[0]:,.0f} to {sizes[-1]:,.0f} training rows"
    return Markup('<div class="nbt-curves">{}</div>').format(plot.drawn(heading, label, "training rows", join(lines)))


def steps_of(points: Sequence[Row]) -> list[int]:
    """The sizes of a learning curve."""
    return sorted({int(point["train_rows"]) for point in points} - {0})


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class _Plot:
    """Where values lie in a picture of `width` and `height`."""

    scale: Scale
    low: float
    high: float
    width: float
    height: float

    @classmethod
    def of(cls, scale: Scale, rows: Sequence[Row], score: str, width: float, height: float) -> _Plot:
        values = [value for row in rows for key in (score, "ci_low", "ci_high") if _finite(value := row.get(key))]
        low, high = min(values), max(values)
        margin = (high - low) * 0.06 or 0.1
        return cls(scale, low - margin, high + margin, width, height)

    def x(self, value: float) -> float:
        return _LEFT + self.scale.part(value) * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - (value - self.low) / (self.high - self.low) * (self.height - _TOP - _BOTTOM)

    def drawn(self, heading: Markup, label: str, axis: str, body: Markup) -> Markup:
        return Markup(
            '<div style="flex:{0} 1 {1}px;max-width:{2}px">{3}<svg viewBox="0 0 {4} {5}" role="img" aria-label="{6}" fill="none" '
            'font-size="10" font-family="system-ui,sans-serif">{7}{8}</svg></div>'
        ).format(
            f"{self.width:g}",
            f"{0.8 * self.width:g}",
            f"{1.2 * self.width:g}",
            heading,
            f"{self.width:g}",
            f"{self.height:g}",
            label,
            self._axes(axis),
            body,
        )

    def _axes(self, axis: str) -> Markup:
        across = Markup('<path d="M{} {}H{}" stroke="currentColor" stroke-opacity=".12"/>')
        text = Markup('<text x="{}" y="{}" text-anchor="{}" fill="currentColor" fill-opacity=".75">{}</text>')
        parts = []
        for value in ticks(self.low, self.high, 6):
            parts.append(across.format(f"{_LEFT:g}", f"{self.y(value):.1f}", f"{self.width - _RIGHT:g}"))
            parts.append(text.format(f"{_LEFT - 6:g}", f"{self.y(value) + 3.5:.1f}", "end", f"{value:.6g}"))
        for place, words in self.scale.marks:
            x = _LEFT + (place - self.scale.low) / (self.scale.high - self.scale.low) * (self.width - _LEFT - _RIGHT)
            down = Markup('<path d="M{} {}v4" stroke="currentColor" stroke-opacity=".45"/>')
            parts += [
                down.format(f"{x:.1f}", f"{self.height - _BOTTOM:g}"),
                text.format(f"{x:.1f}", f"{self.height - _BOTTOM + 15:g}", "middle", words),
            ]
        middle = (_LEFT + self.width - _RIGHT) / 2
        return join([*parts, text.format(f"{middle:.1f}", f"{self.height - 4:g}", "middle", axis)])

    def bar(self, row: Row, x: float, colour: str) -> Markup:
        """The interval of a point."""
        low, high = row.get("ci_low"), row.get("ci_high")
        if not (_finite(low) and _finite(high)):
            return Markup("")
        return Markup('<path d="M{0} {1}V{2}M{3} {1}h6M{3} {2}h6" style="stroke:{4}" stroke-width="1.1" stroke-opacity=".55"/>').format(
            f"{x:.1f}", f"{self.y(low):.1f}", f"{self.y(high):.1f}", f"{x - 3:.1f}", colour
        )


def _picture(known: Sequence[tuple[int, Row, float]], metric: str, cost: Cost) -> Markup:
    plot = _Plot.of(Scale.of([value for *_, value in known], cost.text, wanted=3), [row for _, row, _ in known], metric, 320, 210)
    places = [(plot.x(value), plot.y(float(row[metric]))) for _, row, value in known]
    labels = _beside(places, plot)
    parts = []
    for (number, row, value), (x, y), (left, top) in zip(known, places, labels, strict=True):
        words = f"{number} {one_line(row.get('approach'), 60)}: {figure(float(row[metric]))}, {cost.text(value)}"
        colour = _colour(_OF_SORT[_sort(row)])
        text = Markup('<text x="{}" y="{}" fill="currentColor" font-weight="600">{}</text>').format(f"{left:.1f}", f"{top:.1f}", number)
        parts.append(Markup("<g><title>{}</title>{}{}{}</g>").format(words, plot.bar(row, x, colour), _shape(row, x, y), text))
    heading = Markup('<p class="nbt-key"><b>{} against {}</b></p>').format(one_line(metric, 40), cost.title)
    return plot.drawn(heading, f"{one_line(metric, 40)} against {cost.title}", cost.title, join(parts))


def _beside(places: Sequence[tuple[float, float]], plot: _Plot) -> list[tuple[float, float]]:
    """Where the numbers stand: beside their points, and not on each other."""
    taken = [(x, y) for x, y in places]
    found = []
    for x, y in places:
        tries = [(x + 7, y - 4), (x - 14, y - 4), (x + 7, y + 11), (x - 14, y + 11), (x + 7, y - 15), (x - 14, y - 15), (x + 18, y - 4)]
        inside = [(left, top) for left, top in tries if _LEFT < left < plot.width - 10 and top > _TOP]
        free = (one for one in inside if not any(abs(one[0] + 4 - a) < 9 and abs(one[1] - 4 - b) < 9 for a, b in taken))  # noqa: PLR2004
        chosen = next(free, tries[0])
        taken.append((chosen[0] + 4, chosen[1] - 4))
        found.append(chosen)
    return found


def _numbers(points: Sequence[tuple[int, Row]]) -> Markup:
    key = Markup('<span><svg viewBox="0 -2 22 12" width="22" height="12" aria-hidden="true">{}</svg>{} {}</span> ')
    items = [key.format(_shape(row, 11, 4), number, one_line(row.get("approach"), 60)) for number, row in points]
    sorts = ", ".join(dict.fromkeys(SORTS[_sort(row)] for _, row in points))
    return Markup('<p class="nbt-key nbt-list">{} <small class="nbt-dim">{}</small></p>').format(join(items), sorts)


def _shape(row: Row, x: float, y: float) -> Markup:
    shape = _SHAPES[_sort(row)].format(x=f"{x:.1f}", y=f"{y:.1f}")
    return Markup('<path d="{}" fill="{}"/>').format(shape, _colour(_OF_SORT[_sort(row)]))


def _sort(row: Row) -> str:
    kind = row.get("kind")
    return kind if kind in SORTS else "other"


def _colour(name: str) -> Markup:
    return Markup("var(--nbt-{},{})").format(name, _COLOURS[name])


def _drawn(points: Sequence[Row], metric: str) -> list[str]:
    """The approaches whose lines are drawn, in the order of the records."""
    names = list(dict.fromkeys(str(point["approach"]) for point in points))
    last = {str(point["approach"]): float(point["score"]) for point in points}
    kinds = {str(point["approach"]): point["kind"] for point in points}
    sign = 1 if metric in LESS_IS_BETTER else -1
    kept = sorted(names, key=lambda name: (kinds[name] == "floor", sign * last[name]))[:DRAWN]
    return [name for name in names if name in kept]


def _look(place: int) -> tuple[Markup, str]:
    """(colour, dashes) of a line."""
    return _colour("abcd"[place % 4]), _DASHES[(place // 4 + place) % 4]


def _line(points: Sequence[Row], sizes: Sequence[float], place: int, plot: _Plot) -> Markup:
    colour, dash = _look(place)
    level = [point for point in points if not point["train_rows"]]
    if level:
        ends = [(plot.x(size), plot.y(float(level[0]["score"]))) for size in (sizes[0], sizes[-1])]
        marks = Markup("")
    else:
        aside = (place - DRAWN / 2) * 1.4
        at = [(plot.x(float(point["train_rows"])) + aside, point) for point in sorted(points, key=lambda point: point["train_rows"])]
        ends = [(x, plot.y(float(point["score"]))) for x, point in at]
        dots = (Markup('<circle cx="{}" cy="{}" r="2.8" fill="{}"/>').format(f"{x:.1f}", f"{y:.1f}", colour) for x, y in ends)
        marks = join([*(plot.bar(point, x, colour) for x, point in at), *dots])
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in ends)
    words = ", ".join(f"{point['train_rows']:,} rows {figure(float(point['score']))}" for point in points) if not level else "asked once"
    drawn = Markup('<path d="{}" style="stroke:{}" stroke-width="1.8"{}/>').format(
        path, colour, Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    )
    return Markup("<g><title>{}</title>{}{}</g>").format(f"{one_line(points[0]['approach'], 60)}: {words}", drawn, marks)


def _line_key(name: str, place: int) -> Markup:
    colour, dash = _look(place)
    dashes = Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    line = Markup('<path d="M0 4H22" style="stroke:{}" stroke-width="2"{}/>').format(colour, dashes)
    form = Markup('<span><svg viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">{}</svg> {}</span> ')
    return form.format(line, one_line(name, 60))
