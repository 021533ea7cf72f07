"""The figure one keeps: a run's curves in plotly, for zooming, hovering and saving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbtune_widgets.formats import shown
from nbtune_widgets.progress import Progress
from nbtune_widgets.series import Points, smooth, thin

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nbtune_widgets.protocols import RunView

__all__ = ["run_figure"]

_POINTS = 4000


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
