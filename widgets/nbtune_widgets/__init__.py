"""What is seen of nbtune: the live panel, the static content that outlives it, forms, cards and figures.

Importing this package imports nothing heavy; ipywidgets, anywidget and plotly come in with the function that draws with them.
"""

from __future__ import annotations

from nbtune_widgets.comparison import comparison_html, comparison_text
from nbtune_widgets.diagnosis import diagnosis_html, diagnosis_text
from nbtune_widgets.figures import run_figure
from nbtune_widgets.panel import RunPanel
from nbtune_widgets.protocols import ComparisonView, RunView, SteeredRun, TaskView, TokensView
from nbtune_widgets.static import run_card_html, run_html, run_text
from nbtune_widgets.task_card import task_html, task_text
from nbtune_widgets.tune import tune_form

__all__ = [
    "ComparisonView",
    "RunPanel",
    "RunView",
    "SteeredRun",
    "TaskView",
    "TokensView",
    "comparison_html",
    "comparison_text",
    "diagnosis_html",
    "diagnosis_text",
    "run_card_html",
    "run_figure",
    "run_html",
    "run_text",
    "task_html",
    "task_text",
    "tune_form",
]
