"""Curves as inline SVG: no script, no font, no network; lines and text take the colour of the page around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from nbtune_widgets.formats import count, figure, rate
from nbtune_widgets.markup import join
from nbtune_widgets.series import Points, thin

__all__ = ["Line", "Signs", "curves_svg", "ticks"]

POINTS: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 8.0, 8.0, 20.0


@dataclass(frozen=True)
class Line:
    """One curve: its name, points, colour variable (a to d), dash pattern, whether points are marked, whether its values are rates."""

    name: str
    points: Points
    colour: str = "a"
    dash: str = ""
    dots: bool = False
    faint: bool = False
    of_rates: bool = False


_FALLBACK: Final = {"a": "#0072b2", "b": "#d55e00", "c": "#009e73", "d": "#8c6bb1"}


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about `wanted` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / max(1, wanted)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float
    width: float
    height: float

    def x(self, value: float) -> float:
        part = (value - self.left) / (self.right - self.left)
        return _LEFT + part * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.height - _BOTTOM - part * (self.height - _TOP - _BOTTOM)


@dataclass(frozen=True)
class Signs:
    """What is marked in every chart of a run: the best step by a ring, and the steps at which something happened by a dotted line."""

    best: float | None = None
    marks: tuple[float, ...] = ()


def curves_svg(
    title: str, lines: Sequence[Line], *, width: float = 420, height: float = 170, small: bool = False, signs: Signs | None = None
) -> Markup:
    """A chart of `lines` over steps with its legend; a short paragraph where there is no point yet.

    Values that are not finite leave a gap. Text is set in `currentColor`, so it reads on light and dark.
    """
    key = join(_key(line) for line in lines if len(line.points[0]) and not line.faint)
    thinned = [(line, thin(*line.points, POINTS)) for line in lines]
    finite = [(x, y) for _, (xs, ys) in thinned for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    heading = Markup('<p class="nbt-key"><b>{}</b> {}</p>').format(title, key)
    if not finite:
        return Markup("<div>{}<p>no point yet</p></div>").format(heading)
    frame = _frame(finite, width, height)
    told = signs or Signs()
    parts = [_axes(frame, small=small), _marks(frame, told.marks), *(_curve(line, points, frame) for line, points in thinned)]
    parts += [_ring(line, told.best, frame) for line in lines if line.dots and told.best is not None]
    label = ", ".join(f"{line.name} {_last(line)}" for line in lines if len(line.points[0]) and not line.faint)
    return Markup(
        '<div style="flex:{} 1 {}px;max-width:{}px">{}<svg viewBox="0 0 {} {}" role="img" aria-label="{}" fill="none" '
        'font-size="10" font-family="system-ui,sans-serif">{}</svg></div>'
    ).format(
        f"{width:g}",
        f"{0.62 * width:g}",
        f"{1.25 * width:g}",
        heading,
        f"{width:g}",
        f"{height:g}",
        f"{title} by step: {label}",
        join(parts),
    )


def _frame(points: Sequence[tuple[float, float]], width: float, height: float) -> _Frame:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low = 0.0 if 0 <= low < (high - low) * 0.25 else low - margin
    left, right = min(xs), max(xs)
    return _Frame(left if right > left else left - 1, right if right > left else right + 1, low, high + margin, width, height)


def _axes(frame: _Frame, *, small: bool) -> Markup:
    line = Markup('<path d="M{} {}H{}" stroke="currentColor" stroke-opacity="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}" fill="currentColor" fill-opacity=".75">{}</text>')
    parts: list[Markup] = []
    for value in ticks(frame.low, frame.high, 2 if small else 4):
        y = f"{frame.y(value):.1f}"
        parts.append(line.format(f"{_LEFT:g}", y, f"{frame.width - _RIGHT:g}", ".12"))
        parts.append(text.format(f"{_LEFT - 6:g}", f"{frame.y(value) + 3.5:.1f}", "end", _tick(value)))
    whole = [value for value in ticks(frame.left, frame.right, 3 if small else 5) if value == int(value)]
    below = f"{frame.height - 5:g}"
    parts += [text.format(f"{frame.x(value):.1f}", below, "middle", count(value)) for value in whole]
    return join(parts)


def _marks(frame: _Frame, steps: Sequence[float]) -> Markup:
    line = Markup('<path d="M{} {:g}V{:g}" stroke="currentColor" stroke-opacity=".45" stroke-dasharray="1 3"/>')
    return join(line.format(f"{frame.x(step):.1f}", _TOP, frame.height - _BOTTOM) for step in steps if frame.left <= step <= frame.right)


def _ring(line: Line, step: float, frame: _Frame) -> Markup:
    """A ring with a word round the point of the best step."""
    y = next((y for x, y in zip(*line.points, strict=True) if x == step), math.nan)
    if not math.isfinite(y):
        return Markup("")
    return Markup(
        '<circle cx="{0}" cy="{1}" r="5.5" style="stroke:var(--nbt-{2},{3})" stroke-width="1.6"/>'
        '<text x="{0}" y="{4}" text-anchor="{5}" fill="currentColor" fill-opacity=".75">best</text>'
    ).format(
        f"{frame.x(step):.1f}",
        f"{frame.y(y):.1f}",
        line.colour,
        _FALLBACK[line.colour],
        f"{frame.y(y) - 9 if frame.y(y) > _TOP + _BOTTOM else frame.y(y) + 16:.1f}",
        "end" if frame.x(step) > frame.width - _LEFT else "middle",
    )


def _tick(value: float) -> str:
    return rate(value) if value and abs(value) < 0.01 else f"{value:.6g}"  # noqa: PLR2004


def _curve(line: Line, points: Points, frame: _Frame) -> Markup:
    path: list[str] = []
    dots: list[Markup] = []
    pen = "M"
    colour = f"var(--nbt-{line.colour},{_FALLBACK[line.colour]})"
    for x, y in zip(*points, strict=True):
        if not math.isfinite(y):
            pen = "M"
            continue
        at = (f"{frame.x(x):.1f}", f"{frame.y(y):.1f}")
        path.append(f"{pen}{at[0]} {at[1]}")
        pen = "L"
        if line.dots:
            dots.append(Markup('<circle cx="{}" cy="{}" r="2.6" fill="{}"/>').format(*at, colour))
    shape = Markup('<path d="{}" style="stroke:{}" stroke-width="{}" stroke-opacity="{}" stroke-linejoin="round"{}/>').format(
        "".join(path),
        colour,
        "1" if line.faint else "1.8",
        ".3" if line.faint else "1",
        Markup(' stroke-dasharray="{}"').format(line.dash) if line.dash else "",
    )
    return shape + join(dots if len(dots) <= 60 else [])  # noqa: PLR2004


def _key(line: Line) -> Markup:
    return Markup(
        '<span><svg viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">'
        '<path d="M0 4H22" style="stroke:var(--nbt-{},{})" stroke-width="2"{}/></svg> {} {}</span> '
    ).format(
        line.colour,
        _FALLBACK[line.colour],
        Markup(' stroke-dasharray="{}"').format(line.dash) if line.dash else "",
        line.name,
        _last(line),
    )


def _last(line: Line) -> str:
    ys = line.points[1]
    value = ys[-1] if len(ys) else None
    return rate(value) if line.of_rates else figure(value)
