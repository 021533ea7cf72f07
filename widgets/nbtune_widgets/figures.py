"""The figures one keeps: a run's curves and a comparison's costs in plotly, for zooming, hovering and saving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from nbtune.errors import ComparisonError, did_you_mean
from nbtune_widgets.answers import records
from nbtune_widgets.costs import COSTS, Cost, Scale
from nbtune_widgets.formats import figure as number_text
from nbtune_widgets.formats import one_line, shown
from nbtune_widgets.progress import Progress
from nbtune_widgets.series import Points, smooth, thin

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nbtune_widgets.protocols import ComparisonView, RunView

__all__ = ["comparison_figure", "run_figure"]

_POINTS = 4000
_SORTS: Final = {
    "prompting": ("circle", "#0072b2", "prompting"),
    "tuned": ("square", "#d55e00", "tuned"),
    "floor": ("triangle-up", "#8c6bb1", "to be beaten"),
    "other": ("diamond", "#009e73", "other"),
}
_CURVE: Final = "train_rows"


def run_figure(run: RunView) -> Figure:
    """Loss and dev loss, the metric on dev, and the learning rate, one above the other over the same steps.

    The figure holds at most 4,000 points a curve. plotly is imported here and nowhere else.
    """
    from plotly.subplots import make_subplots

    progress = Progress.of(run)
    score = shown(progress.metric or "score", 40)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05, row_heights=[0.5, 0.3, 0.2])
    raw = progress.loss.points(_POINTS)
    _add(figure, 1, "train loss", raw, "#0072b2", opacity=0.3, width=1)
    _add(figure, 1, "train loss, smoothed", thin(progress.loss.xs, smooth(progress.loss.ys), _POINTS), "#0072b2")
    _add(figure, 1, "dev loss", progress.dev_loss.points(), "#d55e00", dash="dash", markers=True)
    _add(figure, 2, f"dev {score}", progress.score.points(), "#009e73", dash="dot", markers=True)
    _add(figure, 3, "learning rate", progress.learning_rate.points(_POINTS), "#8c6bb1")
    _add_best(figure, progress)
    for row, title in enumerate(("loss", score, "learning rate"), start=1):
        figure.update_yaxes(title_text=_safe(title), row=row, col=1, automargin=True)
    figure.update_xaxes(title_text="step", row=3, col=1)
    figure.update_layout(
        title_text=_safe(f"{shown(run.name, 80)} · {shown(run.method, 40)}"),
        height=620,
        margin={"l": 60, "r": 20, "t": 50, "b": 40},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.04, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    return figure


def comparison_figure(comparison: ComparisonView, cost: str = "seconds") -> Figure:
    """A comparison's scores with their intervals against a cost, or over the training rows (the learning curve).

    Raises:
        ComparisonError: there is no such cost, or nothing to draw.
    """
    if cost not in (*COSTS, _CURVE):
        raise ComparisonError(f"there is no cost {cost!r:.60}", hint=did_you_mean(str(cost), (*COSTS, _CURVE)))
    if comparison.metric is None:
        raise ComparisonError("inputs without answers have no scores to draw", hint="compare on the task's test rows")
    from plotly.graph_objects import Figure

    if cost == _CURVE:
        points, drawn, title = records(comparison.curve), Figure(), "training rows"
        if not points:
            raise ComparisonError("there is no learning curve", hint="compare with train_sizes=[25, 50, 100]")
        _curve_lines(drawn, points)
    else:
        drawn, title = Figure(), COSTS[cost].title
        scale = _cost_points(drawn, records(comparison.table), comparison.metric, COSTS[cost])
        drawn.update_xaxes(tickvals=[place for place, _ in scale.marks], ticktext=[text for _, text in scale.marks])
    drawn.update_layout(
        title_text=_safe(f"{one_line(comparison.metric, 40)} on {one_line(comparison.task_name, 80)} against {title}"),
        height=460,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        hovermode="closest",
    )
    drawn.update_xaxes(title_text=title, automargin=True)
    drawn.update_yaxes(title_text=_safe(one_line(comparison.metric, 40)), automargin=True)
    return drawn


def _cost_points(drawn: Figure, rows: Sequence[dict[str, Any]], metric: str, cost: Cost) -> Scale:
    """A trace for each sort of column.

    Raises:
        ComparisonError: the cost is not known of any.
    """
    known = [(row, value) for row in rows if (value := cost.of(row)) is not None and row.get(metric) is not None]
    if not known:
        raise ComparisonError(f"nothing is known of the {cost.title}", hint="plot another cost")
    scale = Scale.of([value for _, value in known], cost.text, wanted=6)
    for sort, (symbol, colour, name) in _SORTS.items():
        chosen = [(row, value) for row, value in known if (row.get("kind") if row.get("kind") in _SORTS else "other") == sort]
        if not chosen:
            continue
        drawn.add_scatter(
            x=[scale.at(value) for _, value in chosen],
            y=[row[metric] for row, _ in chosen],
            error_y=_whiskers([row for row, _ in chosen], metric),
            mode="markers+text",
            text=[_safe(one_line(row["approach"], 40)) for row, _ in chosen],
            textposition="top center",
            hovertext=[_safe(f"{one_line(row['approach'], 80)}: {number_text(row[metric])}, {cost.text(value)}") for row, value in chosen],
            hoverinfo="text",
            name=name,
            marker={"symbol": symbol, "color": colour, "size": 10},
        )
    return scale


def _curve_lines(drawn: Figure, points: Sequence[dict[str, Any]]) -> None:
    """A line for each approach; what takes nothing from the training rows is level."""
    sizes = sorted({int(point["train_rows"]) for point in points} - {0})
    for name in dict.fromkeys(str(point["approach"]) for point in points):
        own = sorted((point for point in points if point["approach"] == name), key=lambda point: int(point["train_rows"]))
        level = own[0]["train_rows"] == 0
        drawn.add_scatter(
            x=sizes if level else [point["train_rows"] for point in own],
            y=[own[0]["score"]] * len(sizes) if level else [point["score"] for point in own],
            error_y=None if level else _whiskers(own, "score"),
            mode="lines" if level else "lines+markers",
            line={"dash": "dot" if level else "solid"},
            name=_safe(one_line(name, 60)),
        )


def _whiskers(rows: Sequence[dict[str, Any]], score: str) -> dict[str, Any]:
    """The intervals as plotly's error bars; none where an end is not known."""
    above = [row["ci_high"] - row[score] if row.get("ci_high") is not None else 0 for row in rows]
    below = [row[score] - row["ci_low"] if row.get("ci_low") is not None else 0 for row in rows]
    return {"type": "data", "symmetric": False, "thickness": 1, "width": 3, "array": above, "arrayminus": below}


def _add(
    figure: Figure,
    row: int,
    name: str,
    points: Points,
    colour: str,
    *,
    dash: str = "solid",
    markers: bool = False,
    opacity: float = 1.0,
    width: float = 2,
) -> None:
    figure.add_scatter(
        x=list(points[0]),
        y=list(points[1]),
        name=_safe(name),
        mode="lines+markers" if markers else "lines",
        line={"color": colour, "dash": dash, "width": width},
        opacity=opacity,
        row=row,
        col=1,
    )


def _add_best(figure: Figure, progress: Progress) -> None:
    """A ring round the best step on each curve of dev."""
    for row, (curve, colour) in enumerate(((progress.dev_loss, "#d55e00"), (progress.score, "#009e73")), start=1):
        best = [(x, y) for x, y in zip(*curve.points(), strict=True) if x == progress.best_step]
        if best:
            figure.add_scatter(
                x=[best[0][0]],
                y=[best[0][1]],
                name="best step",
                legendgroup="best step",
                showlegend=row == 1,
                mode="markers",
                marker={"symbol": "circle-open", "size": 14, "color": colour, "line": {"width": 2}},
                row=row,
                col=1,
            )


def _safe(text: str) -> str:
    """Plotly reads a few HTML tags in its texts."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
